"""The state that all simulators of a Java process share, set before every call.

The simulator keeps three things per process instead of per episode: a random generator (where
animals wander, and which of two things of one name gets a longer name in the list of actions),
the number of the next object, and the simplifications in force. A query of one episode would
change the answers of the others. So each call first sets all three from its own episode.
"""

from __future__ import annotations

from hashlib import blake2b

from agentgym_envs.scienceworld.jvm import Jvm


class SharedState:
    """Access to the shared state of one Java process; for one caller at a time."""

    def __init__(self, jvm: Jvm) -> None:
        self._jvm = jvm
        self._random = jvm.singleton("scala.util.Random")
        self._counter = jvm.singleton("util.UniqueIdentifier")
        self._simplifier = jvm.singleton("main.scala.scienceworld.runtime.SimplifierProcessor")
        self._path_finder = jvm.singleton("scienceworld.goldagent.PathFinder")
        self._in_force: str | None = None

    def set(self, seed: int, next_object: int, simplifications: str, seconds: float) -> None:
        """Seed the generator, number the next object, and put simplifications in force."""
        call = self._jvm.call
        call(self._random, "setSeed", seed, seconds=seconds)
        call(self._counter, "count_$eq", next_object, seconds=seconds)
        if simplifications != self._in_force:
            made = call(
                self._simplifier, "parseSimplificationStr", simplifications, seconds=seconds
            )
            self._jvm.forget(made)
            self._in_force = simplifications

    def next_object(self, seconds: float) -> int:
        """The number of the next object."""
        return int(self._jvm.call(self._counter, "count", seconds=seconds))

    def before_load(self) -> None:
        """Prepare for the load of a task, which sets simplifications and may fail half-way."""
        self._in_force = None

    def simplifications(self) -> str:
        """Those that a load has set, such as ``openDoors,teleportAction``."""
        found = str(self._jvm.call(self._simplifier, "getSimplificationsUsed"))
        self._in_force = found.replace(" ", "")
        return self._in_force

    def clear_paths(self) -> None:
        """Drop the cached ways through the house, which depend on the tasks searched so far."""
        cache = self._jvm.call(self._path_finder, "precomputedExhaustivePaths")
        self._jvm.call(cache, "clear")
        self._jvm.forget(cache)


def seed(*parts: object) -> int:
    """A seed of Java's generator, 48 bits, that depends on the parts alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")
