"""How rollout and update overlap: three schedules for the steps of a ``Trainer``.

=============  ============================================================================
sync           sample, learn, publish, sample, ...: the weights that sampled a token learn from it
one-step-off   the episodes of step k+1 are sampled while the policy learns from those of step k
async          groups are sampled all the time; weights change under episodes in flight
=============  ============================================================================

``with_importance_correction`` corrects for tokens of older weights. An asynchronous run depends on
the clock, which is that of the event loop; only ``sync`` repeats exactly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

from agentgym.algorithm import Algorithm, extend
from agentgym.credit.importance import correct_sampling
from agentgym.settings import ScheduleSettings
from agentgym.training.groups import Groups
from agentgym.training.trainer import Step
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import cancel

Tasks = Callable[[int], Sequence[Task]]
"""The tasks of a step, from its number; every step has the same number of them."""


class StepTrainer(Protocol):
    """What a schedule asks of a ``Trainer``."""

    step: int
    """Training steps taken."""

    def source(self) -> Groups:
        """Where groups come from."""

    def stream(self, number: int) -> str:
        """Name of a step in the derivation of seeds."""

    async def play(self, tasks: Sequence[Task], number: int) -> list[list[Trajectory]]:
        """Collect one group per task, with the seeds of a step."""

    async def run_step(self, tasks: Sequence[Task]) -> Step:
        """Collect one group per task, learn from them, publish the weights."""

    async def learn(self, groups: Sequence[list[Trajectory]], rollout_seconds: float) -> Step:
        """Update the policy; the seconds of the rollout are logged."""

    async def publish(self) -> None:
        """Load the current weights into the engine."""


class Scheduler(Protocol):
    """Takes training steps, one after another."""

    async def step(self) -> Step:
        """Take the next training step."""

    async def close(self) -> None:
        """Cancel the episodes in flight."""

    def state(self) -> dict[str, Any]:
        """State for a resumed run besides the trainer's; unused episodes are sampled again."""


def make_scheduler(
    settings: ScheduleSettings, trainer: StepTrainer, tasks: Tasks, state: dict[str, Any]
) -> Scheduler:
    """The configured schedule, for a new run or, with ``state``, for a resumed one."""
    if settings.kind == "async":
        return Asynchronous(trainer, tasks, settings, **state)
    return (Synchronous if settings.kind == "sync" else OneStepOff)(trainer, tasks)


def with_importance_correction(algorithm: Algorithm, settings: ScheduleSettings) -> Algorithm:
    """The algorithm with the schedule's correction for tokens of older weights."""
    per = settings.importance or ("none" if settings.kind == "sync" else "token")
    if per == "none":
        return algorithm
    correction = correct_sampling(
        per=per,
        low=settings.importance_floor,
        cap=settings.importance_cap,
        beyond=settings.out_of_range,
    )
    return extend(algorithm, credit=correction)


@dataclass
class Synchronous:
    """Sample, learn, publish."""

    trainer: StepTrainer
    tasks: Tasks

    async def step(self) -> Step:
        """Take the next training step."""
        return await self.trainer.run_step(self.tasks(self.trainer.step))

    async def close(self) -> None:
        """Nothing is in flight between steps."""

    def state(self) -> dict[str, Any]:
        """Empty: tasks and seeds are functions of the step."""
        return {}


@dataclass
class OneStepOff:
    """The next step's episodes are sampled while the policy learns from this step's.

    Weights are published between the episodes of two steps, so each step's episodes have one
    version: that of the step before; the first two steps both have the initial weights. A resumed
    run samples the episodes in flight again, with the weights of the checkpoint.
    """

    trainer: StepTrainer
    tasks: Tasks
    _ahead: asyncio.Task[list[list[Trajectory]]] | None = None

    async def step(self) -> Step:
        """Take the next training step."""
        start, trainer = now(), self.trainer
        groups = await (self._ahead or self._play(trainer.step))
        await trainer.publish()
        self._ahead = asyncio.create_task(self._play(trainer.step + 1))
        return await trainer.learn(groups, now() - start)

    async def _play(self, number: int) -> list[list[Trajectory]]:
        return await self.trainer.play(self.tasks(number), number)

    async def close(self) -> None:
        """Cancel the episodes in flight."""
        await cancel([self._ahead] if self._ahead else [])

    def state(self) -> dict[str, Any]:
        """Empty: tasks and seeds are functions of the step."""
        return {}


class GroupCounts(NamedTuple):
    """Groups affected by asynchrony in one step."""

    carried: float
    """Share of the groups learned from under which the weights changed at least once."""
    dropped: float
    """Number of groups that were too old and dropped."""
    masked: float
    """Number of turns that were too old and are masked."""


@dataclass
class _Group:
    """The episodes of one task, from their start until they are learned from."""

    played: asyncio.Task[list[Trajectory]]
    version: int
    """Policy version at the start: no turn is of an older one."""


@dataclass
class Asynchronous:
    """Groups are sampled all the time, and a step learns from the first that are finished.

    New weights are published under the episodes in flight: the current completion continues, and
    so does the episode, so that both may have tokens of several versions, which are recorded. At
    most ``tasks_per_step * (max_staleness + 1)`` groups are started and not yet learned from, which
    bounds memory and, mostly, their age. A group older than ``max_staleness`` steps is dropped, or
    its stale turns are masked: see ``ScheduleSettings.stale``.

    Finished groups are taken in the order in which they were started. With ``max_staleness=0`` and
    no timeout this equals ``Synchronous``, bit by bit.

    A resumed run samples the groups again that were started and not learned from, with the same
    tasks and seeds and the weights of the checkpoint.
    """

    trainer: StepTrainer
    tasks: Tasks
    settings: ScheduleSettings
    started: int = 0
    """Index of the next group in the endless sequence of all steps' tasks."""
    unfinished: Sequence[int] = ()
    """Indices of groups to start before it."""

    def __post_init__(self) -> None:
        """Start with no groups in flight."""
        self._restarts = deque(self.unfinished)
        self._groups: dict[int, _Group] = {}
        """Groups started and not learned from, by index, in the order of their start."""
        self._source = self.trainer.source()
        """All steps share its limit on concurrent episodes."""
        self._tasks = lru_cache(maxsize=8)(self.tasks)
        """Of a step; drawing them takes a while, and every group of a step asks."""
        self._finished = asyncio.Event()
        """Set when a group has ended; waiting for all groups would look at each for every one."""

    @cached_property
    def size(self) -> int:
        """Groups per step."""
        return len(self._tasks(0))

    async def step(self) -> Step:
        """Take the next training step."""
        start, trainer = now(), self.trainer
        dropped = await self._drop_stale()
        taken = [self._groups.pop(index) for index in await self._ready()]
        carried = sum(group.version < trainer.step for group in taken) / len(taken)
        oldest = trainer.step - self.settings.max_staleness
        groups = [[mask_stale_turns(t, oldest) for t in group.played.result()] for group in taken]
        masked = sum(not turn.learn for group in groups for t in group for turn in t.turns)
        self._start(self.settings.max_staleness)
        result = await trainer.learn(groups, now() - start)
        await trainer.publish()
        counts = GroupCounts(carried, dropped, masked)._asdict()
        named = {f"schedule/{name}": float(value) for name, value in counts.items()}
        return result._replace(metrics=result.metrics | named)

    def _start(self, steps: int) -> None:
        """Start groups until there are as many as so many steps learn from."""
        while len(self._groups) < self.size * steps:
            if self._restarts:
                index = self._restarts.popleft()
            else:
                index, self.started = self.started, self.started + 1
            number, place = divmod(index, self.size)
            task, stream = self._tasks(number)[place], self.trainer.stream(number)
            playing = asyncio.ensure_future(self._source.collect(task, stream))
            playing.add_done_callback(lambda _: self._finished.set())
            self._groups[index] = _Group(playing, self.trainer.step)

    async def _drop_stale(self) -> int:
        """Drop the groups that are too old and return their number."""
        if self.settings.stale == "mask":
            return 0
        oldest = self.trainer.step - self.settings.max_staleness
        late = [index for index, group in self._groups.items() if group.version < oldest]
        await cancel([self._groups.pop(index).played for index in late])
        return len(late)

    async def _ready(self) -> list[int]:
        """Wait for a step's groups, after the timeout for one, and return their indices."""
        end = None if self.settings.group_timeout is None else now() + self.settings.group_timeout
        while True:
            self._start(self.settings.max_staleness + 1)
            self._finished.clear()
            done = [index for index, group in self._groups.items() if group.played.done()]
            left = None if end is None else max(0.0, end - now())
            if len(done) >= self.size or (done and left == 0.0):
                return sorted(done)[: self.size]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), left or None)

    async def close(self) -> None:
        """Cancel the episodes in flight."""
        await cancel([group.played for group in self._groups.values()])
        self._groups.clear()

    def state(self) -> dict[str, Any]:
        """Groups to sample again, and the next one."""
        return {"started": self.started, "unfinished": [*self._groups, *self._restarts]}


def now() -> float:
    """Seconds of the event loop's clock."""
    return asyncio.get_running_loop().time()


def mask_stale_turns(episode: Trajectory, oldest: int) -> Trajectory:
    """The episode with turns sampled by weights before version ``oldest`` as context only."""
    turns = (
        replace(turn, learn=turn.learn and turn.completion.version >= oldest)
        for turn in episode.turns
    )
    return replace(episode, turns=tuple(turns))
