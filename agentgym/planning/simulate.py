"""A schedule of training in virtual time, on simulated engines and trainers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from agentgym.planning.clock import Events, run_virtually
from agentgym.planning.engines import SimulatedEngine
from agentgym.planning.episodes import SimulatedGroups, SimulatedTrajectory
from agentgym.planning.laws import Laws
from agentgym.planning.workload import Workload
from agentgym.settings import ScheduleSettings
from agentgym.training.groups import Groups
from agentgym.training.schedule import make_scheduler
from agentgym.training.trainer import Step
from agentgym.types import Task, Trajectory

WARM_UP = 2
"""Steps before those that are measured: the first ones find no episodes in flight."""
MEASURED = 3


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Which GPUs sample and which learn."""

    schedule: ScheduleSettings
    engines: int
    """GPUs that sample, each with an engine of its own."""
    trainers: int
    """GPUs that learn together."""
    shared: bool = False
    """They are the same GPUs, which sample and learn in turn."""

    @property
    def gpus(self) -> int:
        """In all."""
        return self.engines if self.shared else self.engines + self.trainers


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how much of it at a time."""

    laws: Laws
    workload: Workload
    tasks_per_step: int
    group_size: int = 8
    concurrency: int | None = None
    """Episodes in flight; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What came of a simulation, over its measured steps."""

    episodes_per_hour: float
    turns_per_second: float
    step_seconds: float
    learning: float
    """Share of the time in which the trainer learns."""
    publishing: float
    """Share of the time in which weights are published."""
    env_share: float
    """Of the time that episodes wait, the share that they wait for their environments."""
    most_in_flight: int
    """Episodes at once."""
    oldest: int
    """Largest age of an episode that was learned from, in steps."""


@dataclass
class SimulatedTrainer:
    """What a schedule sees of a ``Trainer``; learning and publishing only take time."""

    training: Training
    groups: SimulatedGroups
    trainers: int
    step: int = 0
    learned: int = 0
    """Episodes learned from."""
    learning: float = 0.0
    """Seconds."""
    publishing: float = 0.0
    """Seconds."""
    last_update: float = 0.0
    """Seconds that the last update and publication took."""
    ages: list[int] = field(default_factory=list)
    """Of the oldest episode of every step, in steps."""

    def source(self) -> Groups:
        """The simulated player."""
        return self.groups

    def stream(self, number: int) -> str:
        """Name of a step."""
        return f"plan/{number}"

    async def play(self, tasks: Sequence[Task], number: int) -> list[list[Trajectory]]:
        """Collect one group per task."""
        stream = self.stream(number)
        return list(await asyncio.gather(*(self.groups.collect(t, stream) for t in tasks)))

    async def run_step(self, tasks: Sequence[Task]) -> Step:
        """Collect, learn, publish."""
        step = await self.learn(await self.play(tasks, self.step), 0.0)
        await self.publish()
        return step

    async def learn(self, groups: Sequence[list[Trajectory]], rollout_seconds: float) -> Step:
        """Take as long as the tokens need."""
        episodes = [cast(SimulatedTrajectory, each) for group in groups for each in group]
        self.ages.append(max(self.step - each.version for each in episodes))
        self.learned += len(episodes)
        seconds = self.training.laws.training(sum(e.tokens for e in episodes), self.trainers)
        await asyncio.sleep(seconds)
        self.learning += seconds
        self.last_update = seconds
        self.step += 1
        return Step(list(groups), {}, (), [])

    async def publish(self) -> None:
        """Take as long as the weights need; engines pause meanwhile."""
        seconds = self.training.laws.publish()
        self.groups.pause(seconds)
        await asyncio.sleep(seconds)
        self.publishing += seconds
        self.last_update += seconds
        self.groups.version = self.step


def simulate(training: Training, placement: Placement, *, steps: int = MEASURED) -> Simulated:
    """Run a schedule for ``WARM_UP`` steps and the measured ones, in virtual time."""
    return run_virtually(lambda events: _simulate(events, training, placement, steps))


async def _simulate(
    events: Events, training: Training, placement: Placement, steps: int
) -> Simulated:
    engines = [SimulatedEngine(events, training.laws) for _ in range(placement.engines)]
    groups = SimulatedGroups(
        events, engines, training.workload, training.group_size, training.concurrency
    )
    trainer = SimulatedTrainer(training, groups, placement.trainers)

    def tasks(number: int) -> list[Task]:
        return [Task("plan", f"{number}-{place}") for place in range(training.tasks_per_step)]

    schedule = make_scheduler(placement.schedule, trainer, tasks, {})
    try:
        for _ in range(WARM_UP):
            await schedule.step()
        start, learned, turns = events.now, trainer.learned, groups.played.turns
        learning, publishing = trainer.learning, trainer.publishing
        for _ in range(steps):
            await schedule.step()
    finally:
        await schedule.close()
    seconds = events.now - start
    waited = groups.played.engine_seconds + groups.played.env_seconds
    return Simulated(
        episodes_per_hour=3600 * (trainer.learned - learned) / seconds,
        turns_per_second=(groups.played.turns - turns) / seconds,
        step_seconds=seconds / steps,
        learning=(trainer.learning - learning) / seconds,
        publishing=(trainer.publishing - publishing) / seconds,
        env_share=groups.played.env_seconds / waited,
        most_in_flight=groups.played.most_in_flight,
        oldest=max(trainer.ages),
    )
