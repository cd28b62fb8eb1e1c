"""The simulators on the Java process of this process, and the replacement of that process."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from agentgym_envs.scienceworld.jvm import HEAP_MB, TIMEOUT, Jvm, JvmDied
from agentgym_envs.scienceworld.shared_state import SharedState, seed
from agentgym_envs.scienceworld.tasks import Spec

CAPACITY = 64
"""Simulators held at once, each about 11 MiB of the Java heap."""

MAX_RESIDENT_MB = HEAP_MB + 512
"""Memory of the Java process, heap and all, above which it is replaced."""

MAX_LOADS = 5_000
"""Tasks loaded by one Java process before it is replaced: some memory of each is never freed."""


class Reply(NamedTuple):
    """An answer of the simulator, and the state of the task after it."""

    text: str
    points: int
    """-100 when failed, else 0 to 100."""
    completed: bool


class Simulator:
    """A task loaded on a Java process; the pool may release it between two calls.

    Every answer depends on the task and on the commands of this simulator alone: not on queries
    in between, and not on other simulators; see ``shared_state``.
    """

    def __init__(self, jvm: Jvm, shared: SharedState, spec: Spec, timeout: float) -> None:
        self.jvm = jvm
        self.spec = spec
        self.timeout = timeout
        self.handle = jvm.create()
        self._shared = shared
        self._commands = 0
        self._next_object = 0
        self._simplifications = ""

    def load(self, *, gold: bool = False) -> None:
        """Start the task; with ``gold`` also find, and play, a way to complete it."""
        # Not followed by the simulator's own reset, which would only build the same house again.
        if gold:
            self._shared.clear_paths()
        arguments = (self.spec.name, self.spec.variation, self.spec.simplifications, gold)
        self._set_shared_state("load")
        self._shared.before_load()
        seconds = self.timeout * (5 if gold else 1)
        self.jvm.call(self.handle, "load", *arguments, seconds=seconds)
        self._next_object = self._shared.next_object(self.timeout)
        self._simplifications = self._shared.simplifications()

    def step(self, command: str) -> Reply:
        """Send one command. Right after loading, only ``look around`` updates the score."""
        text = self._call("step", command)
        points = round(100 * self.jvm.call(self.handle, "getScore", seconds=self.timeout))
        completed = self.jvm.call(self.handle, "getCompleted", seconds=self.timeout)
        self._next_object = self._shared.next_object(self.timeout)
        self._commands += 1
        return Reply(text, points, completed)

    def query(self, method: str) -> str:
        """A text that costs no time: ``freeActionLook``, ``freeActionInventory``, ..."""
        return str(self._call(method))

    def valid_actions(self) -> tuple[str, ...]:
        """Every action that means something now, in the simulator's words; slow."""
        method = "getValidActionObjectCombinations"
        self._set_shared_state(method)
        return self.jvm.texts(self.handle, method, seconds=self.timeout)

    def gold_actions(self) -> tuple[str, ...]:
        """The actions found by ``load``."""
        return self.jvm.texts(self.handle, "getGoldActionSequence", seconds=self.timeout)

    def _call(self, method: str, *args: object) -> Any:
        self._set_shared_state(method)
        return self.jvm.call(self.handle, method, *args, seconds=self.timeout)

    def _set_shared_state(self, method: str) -> None:
        drawn = seed(*self.spec, self._commands, method)
        self._shared.set(drawn, self._next_object, self._simplifications, self.timeout)


class SimulatorPool:
    """The Java process of this process, and the simulators that it holds.

    Callers hold ``lock`` from ``acquire`` to the last call: everything in the Java process happens
    one after the other, and no simulator is released in the middle.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._jvm: Jvm | None = None
        self._shared: SharedState | None = None
        self._loads = 0
        self._held: OrderedDict[Simulator, None] = OrderedDict()
        """Least recently used first."""

    @property
    def jvm(self) -> Jvm | None:
        """The Java process in use, if one was started."""
        return self._jvm

    def acquire(self, spec: Spec, timeout: float = TIMEOUT, *, gold: bool = False) -> Simulator:
        """A simulator that has loaded a task, on a healthy Java process.

        Raises:
            MissingExtra: Java or the simulator is not installed.
            JvmDied: The Java process ended while it loaded the task, or took too long.
            EnvError: Java does not start, or the simulator cannot load the task.
        """
        jvm, shared = self._healthy()
        while len(self._held) >= CAPACITY:
            self.release(next(iter(self._held)))
        simulator = Simulator(jvm, shared, spec, timeout)
        self._held[simulator] = None
        self._loads += 1
        try:
            simulator.load(gold=gold)
        except BaseException:
            self.release(simulator)
            raise
        return simulator

    def holds(self, simulator: Simulator | None) -> bool:
        """Whether a simulator can still be used; counts as a use."""
        if simulator is None or simulator not in self._held or not simulator.jvm.alive:
            return False
        self._held.move_to_end(simulator)
        return True

    def release(self, simulator: Simulator | None) -> None:
        """Free a simulator that is no longer needed; does nothing when it is gone."""
        with self.lock:
            if simulator is not None and simulator in self._held:
                del self._held[simulator]
                simulator.jvm.forget(simulator.handle)

    def shut_down(self) -> None:
        """Kill the Java process; the next ``acquire`` starts another."""
        with self.lock:
            jvm = self._clear()
            if jvm is not None:
                jvm.end()

    def after_fork(self) -> None:
        """In a child process, where Java process and lock are the parent's: start again."""
        self.lock = threading.RLock()
        jvm = self._clear()
        if jvm is not None:
            jvm.detach()

    def _clear(self) -> Jvm | None:
        jvm, self._jvm, self._shared, self._loads = self._jvm, None, None, 0
        self._held.clear()
        return jvm

    def _healthy(self) -> tuple[Jvm, SharedState]:
        jvm, shared = self._jvm, self._shared
        worn = self._loads >= MAX_LOADS
        if not jvm or not shared or worn or not jvm.alive or jvm.resident_mb > MAX_RESIDENT_MB:
            self.shut_down()
            jvm = self._jvm = Jvm()
            shared = self._shared = SharedState(jvm)
        return jvm, shared


SIMULATORS = SimulatorPool()
atexit.register(SIMULATORS.shut_down)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=SIMULATORS.after_fork)

__all__ = ["SIMULATORS", "JvmDied", "Reply", "Simulator", "SimulatorPool"]
