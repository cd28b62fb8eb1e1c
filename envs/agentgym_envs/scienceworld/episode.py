"""One episode: its commands so far, which allow forks and outlive the simulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Self, TypeVar

from agentgym.errors import EnvError, NotReplayable
from agentgym_envs.scienceworld import text
from agentgym_envs.scienceworld.simulator import SIMULATORS, Reply, Simulator
from agentgym_envs.scienceworld.tasks import Spec

_FIRST_COMMAND = "look around"
T = TypeVar("T")


class Episode:
    """A task in progress, defined by its commands and their answers.

    A simulator cannot be copied, but the same commands lead to the same answers. So a fork, or an
    episode that lost its simulator (the Java process died or was replaced, or other episodes
    needed the place), sends every command again to a new one and checks each answer.
    """

    def __init__(self, spec: Spec, timeout: float) -> None:
        """Start.

        Raises:
            MissingExtra: Java or the simulator is not installed.
            EnvError: The Java process fails.
        """
        self.spec = spec
        self.timeout = timeout
        self.history: list[tuple[str, Reply]] = []
        self._valid_actions: tuple[str, ...] | None = None
        self._simulator: Simulator | None = None
        with SIMULATORS.lock:
            self._simulator = SIMULATORS.acquire(spec, timeout)
            self.history.append((_FIRST_COMMAND, self._simulator.step(_FIRST_COMMAND)))
            self.goal = " ".join(self.query("freeActionTaskDesc").partition("\n")[2].split())

    @property
    def last(self) -> Reply:
        """The last answer."""
        return self.history[-1][1]

    def step(self, command: str) -> Reply:
        """Send one command.

        Raises:
            EnvError: The Java process died, hung or failed in the middle. The command then does
                not count: sent again, it continues from where the episode was.
            NotReplayable: The episode had to be replayed and went differently.
        """
        with SIMULATORS.lock:
            reply = self._with_simulator(lambda simulator: simulator.step(command))
            self.history.append((command, reply))
            self._valid_actions = None
            return reply

    def query(self, method: str) -> str:
        """A text that costs no time; see ``Simulator.query``."""
        with SIMULATORS.lock:
            return self._with_simulator(lambda simulator: simulator.query(method))

    def valid_actions(self) -> tuple[str, ...]:
        """Every action that means something now: numbers, when a question is open.

        Computed once per command: it takes longer than a step.
        """
        if self._valid_actions is None:
            with SIMULATORS.lock:
                self._valid_actions = text.choices(self.last.text) or self._with_simulator(
                    Simulator.valid_actions
                )
        return self._valid_actions

    def remaining_gold_actions(self) -> tuple[str, ...] | None:
        """The rest of the gold actions, or None when play has left them or they do not win.

        Looking around and nonsense change nothing, so they do not leave the path.
        """
        gold = gold_actions(self.spec)
        if gold is None:
            return None
        at = 0
        for command, reply in self.history:
            if text.is_free(command, reply.text):
                continue
            while at < len(gold) and gold[at].free:
                at += 1
            if at == len(gold) or gold[at].command != command:
                return None
            at += 1
        return tuple(step.command for step in gold[at:])

    def fork(self) -> Self:
        """The same episode at the same point, to be continued independently; costs a replay.

        Raises:
            NotReplayable: The replay went differently.
        """
        other = object.__new__(type(self))
        other.spec, other.timeout, other.goal = self.spec, self.timeout, self.goal
        other.history, other._valid_actions = list(self.history), self._valid_actions
        other._simulator = None
        with SIMULATORS.lock:
            other._replay()
        return other

    def close(self) -> None:
        """Release the simulator."""
        SIMULATORS.release(self._simulator)
        self._simulator = None

    def _with_simulator(self, call: Callable[[Simulator], T]) -> T:
        if not SIMULATORS.holds(self._simulator):
            self._replay()
        assert self._simulator is not None
        try:
            return call(self._simulator)
        except EnvError:
            self.close()  # half a step may have happened; the next call replays the history
            raise

    def _replay(self) -> None:
        """Bring a new simulator to where this episode is."""
        simulator = SIMULATORS.acquire(self.spec, self.timeout)
        try:
            for number, (command, expected) in enumerate(self.history):
                _compare(self.spec, number, command, simulator.step(command), expected)
        except BaseException:
            SIMULATORS.release(simulator)
            raise
        self._simulator = simulator


def _compare(spec: Spec, number: int, command: str, got: Reply, expected: Reply) -> None:
    if got == expected:
        return
    (one, other) = (got.text, expected.text) if got.text != expected.text else (got, expected)
    where = f"{spec.name}-{spec.simplifications or 'full'}-v{spec.variation}"
    raise NotReplayable(
        f"ScienceWorld task {where}: the answer to command {number}, {command!r}, was "
        f"{str(one)[:200]!r} in the replay, {str(other)[:200]!r} before"
    )


class GoldStep(NamedTuple):
    """One action of a way to win; ``free`` if it changes nothing, such as looking around."""

    command: str
    free: bool


@lru_cache(maxsize=4096)
def gold_actions(spec: Spec) -> tuple[GoldStep, ...] | None:
    """The simulator's own way to complete a task, verified by playing it; None if it fails.

    Ends where the task is completed, often before the simulator's list does. Upstream lists 24
    variations of 7,207 with imperfect gold actions.
    """
    with SIMULATORS.lock:
        simulator = SIMULATORS.acquire(spec, gold=True)
        commands = simulator.gold_actions()
        SIMULATORS.release(simulator)
        simulator = SIMULATORS.acquire(spec)
        try:
            simulator.step(_FIRST_COMMAND)
            steps: list[GoldStep] = []
            for command in commands:
                reply = simulator.step(command)
                steps.append(GoldStep(command, text.is_free(command, reply.text)))
                if reply.completed or reply.points < 0:
                    return tuple(steps) if reply.points == 100 else None
        finally:
            SIMULATORS.release(simulator)
    return None
