"""Z-machine interpreters, kept for reuse. Imports Jericho, so it is itself imported late."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import jericho
from jericho.jericho import _load_frotz_lib

from agentgym.errors import WorldError


class Interpreter(jericho.FrotzEnv):  # type: ignore[misc]
    """Frotz, told to run bytes that were checked instead of a file that may have changed.

    The base class would read the file again, hash it to look up hints for well-known games,
    and warn that it has none.
    """

    def __init__(self) -> None:
        self._cache: dict[str, Any] = {}
        self._bindings = None
        self.frotz_lib = _load_frotz_lib()
        self.name = ""

    def play(self, name: str, rom: bytes) -> None:
        """Load a game and run it to its first prompt, dropping what it prints."""
        before, self._cache = self._cache, {name: (rom, {}, None)}
        self.load(name, -1)
        self.name = name
        del before  # the library may look at the old bytes until it has loaded the new ones


class Interpreters:
    """Idle interpreters: starting one copies and maps a library, which takes milliseconds."""

    def __init__(self, keep: int = 16) -> None:
        self._idle: deque[Interpreter] = deque(maxlen=keep)
        self._lock = threading.Lock()

    def take(self, name: str, rom: bytes) -> Interpreter:
        """An interpreter that has loaded a game, in whatever state it was left.

        Raises:
            WorldError: The interpreter's library cannot be copied.
        """
        with self._lock:
            same = next((one for one in self._idle if one.name == name), None)
            found = same or (self._idle[0] if len(self._idle) == self._idle.maxlen else None)
            if found:
                self._idle.remove(found)
        if not found:
            try:
                found = Interpreter()
            except OSError as problem:
                raise WorldError(
                    f"cannot start an interpreter: {problem.strerror or problem}; "
                    "it needs room in the folder for temporary files"
                ) from problem
        if not same:
            found.play(name, rom)
        return found

    def give(self, interpreter: Interpreter) -> None:
        """Take back an interpreter that nobody uses any more."""
        with self._lock:
            self._idle.append(interpreter)


INTERPRETERS = Interpreters()
