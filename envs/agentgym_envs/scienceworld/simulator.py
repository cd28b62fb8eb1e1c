"""The simulators on this process's one Java machine, and the machine's replacement."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections import OrderedDict
from typing import NamedTuple

from agentgym_envs.scienceworld.jvm import HEAP_MB, PATIENCE, Machine, MachineDied
from agentgym_envs.scienceworld.tasks import Spec

SEATS = 64
"""Simulators on the machine at once, each about 11 MiB of its heap."""

LIMIT_MB = HEAP_MB + 512
"""Memory of the machine, heap and all, above which it is replaced."""

LOADS = 5_000
"""Tasks loaded by one machine before it is replaced: what Java keeps of each is never freed."""


class Reply(NamedTuple):
    """What the simulator answered, and where the task stands after that."""

    text: str
    points: int
    """-100 when failed, else 0 to 100."""
    completed: bool


class Simulator:
    """A task loaded on a machine; may lose its seat to others at any time between two calls."""

    def __init__(self, machine: Machine, patience: float) -> None:
        self.machine = machine
        self.patience = patience
        self.handle = machine.create()

    def load(self, spec: Spec, *, gold: bool = False) -> None:
        """Begin a task; with ``gold`` also find, and play, a way to complete it."""
        # Not followed by the simulator's own reset, which would only build the same world again.
        seconds = self.patience * (5 if gold else 1)
        arguments = (spec.name, spec.variation, spec.simplifications, gold)
        self.machine.call(self.handle, "load", *arguments, seconds=seconds)

    def step(self, line: str) -> Reply:
        """Say one line. Right after loading, only ``look around`` makes the score current."""
        call, seconds = self.machine.call, self.patience
        text = call(self.handle, "step", line, seconds=seconds)
        points = round(100 * call(self.handle, "getScore", seconds=seconds))
        return Reply(text, points, call(self.handle, "getCompleted", seconds=seconds))

    def ask(self, what: str) -> str:
        """A text that costs no time: ``freeActionLook``, ``freeActionInventory``, ..."""
        return str(self.machine.call(self.handle, what, seconds=self.patience))

    def valid(self) -> tuple[str, ...]:
        """Every action that means something now, in the simulator's words; takes a while."""
        found = json.loads(self.ask("getValidActionObjectCombinationsJSON"))
        return tuple(entry["action"] for entry in found["validActions"])

    def gold(self) -> tuple[str, ...]:
        """The actions found by ``load``."""
        return self.machine.texts(self.handle, "getGoldActionSequence")


class Stage:
    """The machine of this process, and who has a seat on it.

    Whoever uses a simulator holds ``lock`` from taking the seat to the last call: everything on
    the machine happens one after the other, and nobody loses a seat in the middle.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._machine: Machine | None = None
        self._loads = 0
        self._seated: OrderedDict[Simulator, None] = OrderedDict()
        """Least recently used first."""

    @property
    def machine(self) -> Machine | None:
        """The one in use, if one was started."""
        return self._machine

    def seat(self, spec: Spec, patience: float = PATIENCE, *, gold: bool = False) -> Simulator:
        """A simulator that has loaded a task, on a machine that is well.

        Raises:
            MissingExtra: Java or the simulator is not installed.
            MachineDied: The machine ended while it loaded the task, or took too long.
            EnvError: Java does not start, or the simulator cannot load the task.
        """
        machine = self._well()
        while len(self._seated) >= SEATS:
            self.leave(next(iter(self._seated)))
        simulator = Simulator(machine, patience)
        self._seated[simulator] = None
        self._loads += 1
        try:
            simulator.load(spec, gold=gold)
        except BaseException:
            self.leave(simulator)
            raise
        return simulator

    def seated(self, simulator: Simulator | None) -> bool:
        """It can still be used; counts as using it."""
        if simulator is None or simulator not in self._seated or not simulator.machine.alive:
            return False
        self._seated.move_to_end(simulator)
        return True

    def leave(self, simulator: Simulator | None) -> None:
        """Free a simulator that nobody uses any more; does nothing when it is gone."""
        with self.lock:
            if simulator is not None and simulator in self._seated:
                del self._seated[simulator]
                simulator.machine.forget(simulator.handle)

    def end(self) -> None:
        """Kill the machine; the next to need one starts another."""
        with self.lock:
            machine, self._machine, self._loads = self._machine, None, 0
            self._seated.clear()
            if machine is not None:
                machine.end()

    def forked(self) -> None:
        """In a child process, where machine and lock are the parent's: begin anew."""
        self.lock = threading.RLock()
        machine, self._machine, self._loads = self._machine, None, 0
        self._seated.clear()
        if machine is not None:
            machine.abandon()

    def _well(self) -> Machine:
        machine = self._machine
        worn = self._loads >= LOADS
        if not machine or worn or not machine.alive or machine.resident_mb > LIMIT_MB:
            self.end()
            machine = self._machine = Machine()
        return machine


STAGE = Stage()
atexit.register(STAGE.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STAGE.forked)

__all__ = ["STAGE", "MachineDied", "Reply", "Simulator", "Stage"]
