"""One episode: what was said so far, so that it can be branched, and survive its simulator."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Self, TypeVar

from agentgym.errors import EnvError, NotReplayable
from agentgym_envs.scienceworld import text
from agentgym_envs.scienceworld.simulator import STAGE, Reply, Simulator
from agentgym_envs.scienceworld.tasks import Spec

_FIRST = "look around"
T = TypeVar("T")


class Episode:
    """A task in progress, known by its lines and their answers.

    A simulator cannot be copied, but the same lines lead to the same answers. So a branch, or an
    episode whose simulator is gone (the machine died or was replaced, or others needed the
    seat), says everything again to a new one and checks each answer.
    """

    def __init__(self, spec: Spec, patience: float) -> None:
        """Begin.

        Raises:
            MissingExtra: Java or the simulator is not installed.
            EnvError: The machine fails.
        """
        self.spec = spec
        self.patience = patience
        self.said: list[tuple[str, Reply]] = []
        self._valid: tuple[str, ...] | None = None
        self._simulator: Simulator | None = None
        with STAGE.lock:
            self._simulator = STAGE.seat(spec, patience)
            self.said.append((_FIRST, self._simulator.step(_FIRST)))
            self.goal = " ".join(self.ask("freeActionTaskDesc").partition("\n")[2].split())

    @property
    def now(self) -> Reply:
        """The last answer."""
        return self.said[-1][1]

    def say(self, line: str) -> Reply:
        """Say one line.

        Raises:
            EnvError: The machine died, hung or failed in the middle. The line then counts as
                not said: saying it again goes on from where the episode was.
            NotReplayable: The episode had to be replayed and went differently.
        """
        with STAGE.lock:
            reply = self._live(lambda simulator: simulator.step(line))
            self.said.append((line, reply))
            self._valid = None
            return reply

    def ask(self, what: str) -> str:
        """A text that costs no time; see ``Simulator.ask``."""
        with STAGE.lock:
            return self._live(lambda simulator: simulator.ask(what))

    def valid(self) -> tuple[str, ...]:
        """Every action that means something now: numbers, when a question is open.

        Asked of the simulator once after each line: it takes longer than a step.
        """
        if self._valid is None:
            with STAGE.lock:
                self._valid = text.choices(self.now.text) or self._live(Simulator.valid)
        return self._valid

    def plan(self) -> tuple[str, ...] | None:
        """The rest of the gold actions, or None when play has left them or they do not win.

        Looking around and nonsense change nothing, so they do not leave the path.
        """
        gold = gold_actions(self.spec)
        if gold is None:
            return None
        at = 0
        for line, reply in self.said:
            if text.free(line, reply.text):
                continue
            while at < len(gold) and gold[at].free:
                at += 1
            if at == len(gold) or gold[at].line != line:
                return None
            at += 1
        return tuple(step.line for step in gold[at:])

    def fork(self) -> Self:
        """The same episode at the same point, played on independently; costs a replay.

        Raises:
            NotReplayable: The replay went differently.
        """
        other = object.__new__(type(self))
        other.spec, other.patience, other.goal = self.spec, self.patience, self.goal
        other.said, other._valid = list(self.said), self._valid
        other._simulator = None
        with STAGE.lock:
            other._revive()
        return other

    def close(self) -> None:
        """Give up the simulator."""
        STAGE.leave(self._simulator)
        self._simulator = None

    def _live(self, call: Callable[[Simulator], T]) -> T:
        if not STAGE.seated(self._simulator):
            self._revive()
        assert self._simulator is not None
        try:
            return call(self._simulator)
        except EnvError:
            self.close()  # half a step may have happened; the next call starts from the lines
            raise

    def _revive(self) -> None:
        """Get a new simulator to where this episode is."""
        simulator = STAGE.seat(self.spec, self.patience)
        try:
            for number, (line, expected) in enumerate(self.said):
                _compare(self.spec, number, line, simulator.step(line), expected)
        except BaseException:
            STAGE.leave(simulator)
            raise
        self._simulator = simulator


def _compare(spec: Spec, number: int, line: str, got: Reply, expected: Reply) -> None:
    if got == expected:
        return
    (one, other) = (got.text, expected.text) if got.text != expected.text else (got, expected)
    where = f"{spec.name}-{spec.simplifications or 'full'}-v{spec.variation}"
    raise NotReplayable(
        f"ScienceWorld task {where}: line {number}, {line!r}, was answered "
        f"{str(one)[:200]!r} in the replay, {str(other)[:200]!r} before"
    )


class GoldStep(NamedTuple):
    """One action of a way to win; ``free`` if it changes nothing, such as looking around."""

    line: str
    free: bool


@lru_cache(maxsize=4096)
def gold_actions(spec: Spec) -> tuple[GoldStep, ...] | None:
    """The simulator's own way to complete a task, played to see that it does; None if it fails.

    Ends where the task is completed, often before the simulator's list does. Upstream knows 24
    variations of 7,207 with imperfect lists.
    """
    with STAGE.lock:
        simulator = STAGE.seat(spec, gold=True)
        lines = simulator.gold()
        STAGE.leave(simulator)
        simulator = STAGE.seat(spec)
        try:
            simulator.step(_FIRST)
            steps: list[GoldStep] = []
            for line in lines:
                reply = simulator.step(line)
                steps.append(GoldStep(line, text.free(line, reply.text)))
                if reply.completed or reply.points < 0:
                    return tuple(steps) if reply.points == 100 else None
        finally:
            STAGE.leave(simulator)
    return None
