"""When episodes are played and when the policy learns: three orders of what a ``Trainer`` does.

=============  ============================================================================
sync           play, learn, publish, play, ...: every token is of the weights that learn it
one-step-off   while the policy learns from step k, step k+1 is played with the same weights
async          groups are played all the time; weights are changed under episodes that go on
=============  ============================================================================

``correct`` makes up for tokens of older weights. What is asynchronous depends on the clock: only
``sync``, and what is waited for as in it, gives the same run twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from agentgym.algorithm import Algorithm, extend
from agentgym.credit.importance import correct_sampling
from agentgym.settings import ScheduleSettings
from agentgym.training.trainer import Step, Trainer
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import cancel

Tasks = Callable[[int], Sequence[Task]]
"""The tasks of a step, as many for each step, from its number."""


class Scheduler(Protocol):
    """Takes one training step after the other."""

    async def step(self) -> Step:
        """The next one."""

    async def close(self) -> None:
        """Give up what is being played."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the trainer's; what was not learned is played again."""


def scheduler(
    how: ScheduleSettings, trainer: Trainer, tasks: Tasks, state: dict[str, Any]
) -> Scheduler:
    """The one that is configured, as a run begins or, with a ``state``, goes on."""
    if how.kind == "async":
        return Asynchronous(trainer, tasks, how, **state)
    return (Synchronous if how.kind == "sync" else OneStepOff)(trainer, tasks)


def correct(algorithm: Algorithm, how: ScheduleSettings) -> Algorithm:
    """The algorithm with the correction for older weights that a schedule asks for."""
    per = how.importance or ("none" if how.kind == "sync" else "token")
    if per == "none":
        return algorithm
    correction = correct_sampling(
        per=per, low=how.importance_floor, cap=how.importance_cap, beyond=how.out_of_range
    )
    return extend(algorithm, credit=correction)


@dataclass
class Synchronous:
    """Play, learn, publish."""

    trainer: Trainer
    tasks: Tasks

    async def step(self) -> Step:
        """The next step."""
        return await self.trainer.run_step(self.tasks(self.trainer.step))

    async def close(self) -> None:
        """Nothing is being played."""

    def state(self) -> dict[str, Any]:
        """Nothing: tasks and seeds are a function of the step."""
        return {}


@dataclass
class OneStepOff:
    """The next step's episodes are played while this one's are learned from.

    Weights are published between two steps' episodes, so each step's are of one version: that of
    the step before, and of the very first weights for the first two. A resumed run plays the
    episodes under way again, and they are of the weights that it begins with.
    """

    trainer: Trainer
    tasks: Tasks
    _ahead: asyncio.Task[list[list[Trajectory]]] | None = None

    async def step(self) -> Step:
        """The next step."""
        began, trainer = time.perf_counter(), self.trainer
        groups = await (self._ahead or self._play(trainer.step))
        trainer.publish()
        self._ahead = asyncio.create_task(self._play(trainer.step + 1))
        return await trainer.learn(groups, time.perf_counter() - began)

    async def _play(self, number: int) -> list[list[Trajectory]]:
        return await self.trainer.play(self.tasks(number), number)

    async def close(self) -> None:
        """Give up what is being played."""
        await cancel([self._ahead] if self._ahead else [])

    def state(self) -> dict[str, Any]:
        """Nothing: tasks and seeds are a function of the step."""
        return {}


class Fate(NamedTuple):
    """What became of groups in one step."""

    carried: float
    """Share of those learned from under which weights were changed at least once."""
    dropped: float
    """How many were too old, and given up."""
    masked: float
    """Turns that were too old, and are not learned from."""


@dataclass
class _Group:
    """The episodes of one task, from their beginning until they are learned from."""

    played: asyncio.Task[list[Trajectory]]
    version: int
    """Of the weights when it was begun: no turn is of an older one."""


@dataclass
class Asynchronous:
    """Groups are played all the time, and a step learns from the first that are finished.

    New weights are published under the episodes in flight: the completion under way goes on, and
    so does the episode, so that tokens of both may be of several versions, which they carry. At
    most ``tasks_per_step * (staleness + 1)`` groups are begun and not yet learned from, which
    bounds memory and, in order, their age. A group that is older than ``staleness`` steps all the
    same is given up, or loses the turns that are: see ``settings.Schedule``.

    Groups that are ready are taken in the order in which they were begun. With a staleness of 0
    and no deadline this is ``Synchronous``, bit by bit.

    A resumed run plays what was begun and not learned from again, with the same tasks and seeds
    and the weights of that moment.
    """

    trainer: Trainer
    tasks: Tasks
    how: ScheduleSettings
    begun: int = 0
    """Place of the next group in the endless row of all steps' tasks."""
    again: Sequence[int] = ()
    """Places of groups to begin before it."""

    def __post_init__(self) -> None:
        """Nothing is being played."""
        self._again = deque(self.again)
        self._groups: dict[int, _Group] = {}
        """What is begun and not learned from, by place, in the order of beginning."""
        self._player = replace(self.trainer.player)
        """Whose seats all steps share."""

    @property
    def size(self) -> int:
        """Groups per step."""
        return len(self.tasks(0))

    async def step(self) -> Step:
        """The next step."""
        began, trainer = time.perf_counter(), self.trainer
        dropped = await self._give_up()
        places = await self._ready()
        taken = [self._groups.pop(place) for place in places]
        carried = sum(group.version < trainer.step for group in taken) / len(taken)
        oldest = trainer.step - self.how.max_staleness
        groups = [[mask_stale_turns(t, oldest) for t in group.played.result()] for group in taken]
        masked = sum(not turn.learn for group in groups for t in group for turn in t.turns)
        self._begin(self.how.max_staleness)
        result = await trainer.learn(groups, time.perf_counter() - began)
        trainer.publish()
        fate = Fate(carried, dropped, masked)._asdict()
        named = {f"schedule/{name}": float(value) for name, value in fate.items()}
        return result._replace(metrics=result.metrics | named)

    def _begin(self, steps: int) -> None:
        """Fill up what is begun to as many groups as so many steps will learn from."""
        while len(self._groups) < self.size * steps:
            if self._again:
                place = self._again.popleft()
            else:
                place, self.begun = self.begun, self.begun + 1
            number, index = divmod(place, self.size)
            player = self._player.with_stream(self.trainer.stream(number))
            playing = self.trainer.algorithm.collect(self.tasks(number)[index], player)
            self._groups[place] = _Group(asyncio.ensure_future(playing), self.trainer.step)

    async def _give_up(self) -> int:
        """Drop the groups that are too old; how many."""
        if self.how.stale == "mask":
            return 0
        oldest = self.trainer.step - self.how.max_staleness
        late = [place for place, group in self._groups.items() if group.version < oldest]
        await cancel([self._groups.pop(place).played for place in late])
        return len(late)

    async def _ready(self) -> list[int]:
        """Wait for a step's groups, or for one when the deadline is over; their places."""
        end = None if self.how.group_timeout is None else time.monotonic() + self.how.group_timeout
        while True:
            self._begin(self.how.max_staleness + 1)
            done = [place for place, group in self._groups.items() if group.played.done()]
            left = None if end is None else max(0.0, end - time.monotonic())
            if len(done) >= self.size or (done and left == 0.0):
                return sorted(done)[: self.size]
            flying = [group.played for group in self._groups.values() if not group.played.done()]
            await asyncio.wait(flying, timeout=left or None, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Give up what is being played."""
        await cancel([group.played for group in self._groups.values()])
        self._groups.clear()

    def state(self) -> dict[str, Any]:
        """What to play again, and where to go on."""
        return {"begun": self.begun, "again": [*self._groups, *self._again]}


def mask_stale_turns(episode: Trajectory, oldest: int) -> Trajectory:
    """The episode, of which turns by weights before version ``oldest`` are context only."""
    turns = (
        replace(turn, learn=turn.learn and turn.completion.version >= oldest)
        for turn in episode.turns
    )
    return replace(episode, turns=tuple(turns))
