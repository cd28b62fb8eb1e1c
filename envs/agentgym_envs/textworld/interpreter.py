"""Z-machine interpreters, kept for reuse. Imports Jericho, so it is itself imported late."""

from __future__ import annotations

import threading
from collections import deque

import jericho
from jericho.jericho import _load_frotz_lib

from agentgym.errors import EnvError


class Interpreter(jericho.FrotzEnv):  # type: ignore[misc]
    """Frotz, given bytes that were checked instead of a file that may have changed.

    The base class would also look up hints for well-known games and warn that it has none.
    """

    def __init__(self) -> None:
        self.frotz_lib = _load_frotz_lib()
        self.opening = ""
        """What the game printed before its first prompt."""
        self.rom = b""

    def play(self, name: str, rom: bytes) -> None:
        """Run a game to its first prompt."""
        self.frotz_lib.shutdown()
        self.rom = rom  # the library reads these bytes for as long as it runs
        first = self.frotz_lib.setup(name.encode(), -1, rom, len(rom))
        self.opening = first.decode("cp1252", "replace")

    def say(self, line: str) -> str:
        """Type one line of ASCII and read the answer."""
        answer: bytes = self.frotz_lib.step(line.encode("ascii") + b"\n")
        return answer.decode("cp1252", "replace")


KEPT = 128
"""Idle interpreters of a process: the episodes and forks of a training step, twice over, for the
next step plays other games. One has about 1.3 MiB."""


class Interpreters:
    """Idle interpreters: starting one copies and maps a library, which takes milliseconds."""

    def __init__(self, keep: int = KEPT) -> None:
        self._idle: deque[Interpreter] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def take(self, name: str, rom: bytes, *, fresh: bool = False) -> Interpreter:
        """An interpreter that has loaded a game, at its start if ``fresh``, else in any state.

        Raises:
            EnvError: The interpreter's library cannot be copied.
        """
        with self._lock:
            same = next((one for one in self._idle if one.rom == rom), None)
            found = same or (self._idle[0] if len(self._idle) == self._idle.maxlen else None)
            if found:
                self._idle.remove(found)
        if not found:
            try:
                found = Interpreter()
            except OSError as problem:
                raise EnvError(
                    f"cannot start an interpreter: {problem.strerror or problem}; "
                    "it needs room in the folder for temporary files"
                ) from problem
        if fresh or found is not same:
            found.play(name, rom)
        return found

    def give(self, interpreter: Interpreter) -> None:
        """Return an unused interpreter."""
        with self._lock:
            self._idle.append(interpreter)


INTERPRETERS = Interpreters()
