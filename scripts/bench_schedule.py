"""Speed of the schedules: one-step-off and async against sync.

    scripts/bench schedule [--steps 6] [--delay 0.1] [--repetitions 3]

Every schedule trains a model made from scratch in the same environment, one step of warm-up and
then the measured ones; the schedules take turns, figures are medians of seconds per step. The
environment answers after a delay that varies, one answer in five after ten times as long.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import mean, median

import numpy as np
import tyro

from agentgym.engines.local.engine import LocalEngine
from agentgym.env.executor import EnvHandle, MakeEnv, ResetResult, StepResult, ThreadExecutor
from agentgym.env.registry import EnvFactory
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.action_formats import Plain
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import ScheduleSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.schedule import make_scheduler, with_importance_correction
from agentgym.training.trainer import Step, Trainer
from agentgym.types import Sampling, Task
from agentgym_trainers.grpo import GRPO

WAYS = {
    "sync": ScheduleSettings(),
    "one-step-off": ScheduleSettings(kind="one-step-off"),
    "async, staleness 1": ScheduleSettings(kind="async", max_staleness=1),
    "async, staleness 2": ScheduleSettings(kind="async", max_staleness=2),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Size of the measurement."""

    steps: int = 6
    """Measured training steps."""
    tasks: int = 8
    """Tasks per step."""
    group: int = 4
    """Episodes per task."""
    turns: int = 10
    """Longest episode."""
    delay: float = 0.1
    """Mean seconds of an ordinary answer of the environment."""
    repetitions: int = 3
    """Measurements of each schedule."""


@dataclass(frozen=True)
class Slow:
    """A world that answers late, which costs no processor time."""

    world: EnvHandle
    rng: np.random.Generator
    mean: float

    async def reset(self, task: Task) -> ResetResult:
        """At once."""
        return await self.world.reset(task)

    async def step(self, action: str) -> StepResult:
        """After a while."""
        factor = 10.0 if self.rng.random() < 0.2 else 1.0
        await asyncio.sleep(factor * self.mean * self.rng.uniform(0.5, 1.5))
        return await self.world.step(action)

    async def fork(self) -> EnvHandle:
        """At once."""
        return Slow(await self.world.fork(), self.rng, self.mean)

    async def close(self) -> None:
        """At once."""
        await self.world.close()


@dataclass(frozen=True)
class SlowHost:
    """Where slow worlds live."""

    mean: float
    """Seconds of an ordinary answer, on average."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    host: ThreadExecutor = field(default_factory=ThreadExecutor)

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """The world of a task."""
        return Slow(await self.host.open(make, task), self.rng, self.mean)


def trainer_of(options: Options, how: ScheduleSettings) -> Trainer:
    """A model made from scratch, and what it takes to train it."""
    tokenizer = from_scratch.make_tokenizer(["Higher. Lower. I hide a number from 1 to 100."], 400)
    model = from_scratch.make_model(tokenizer, ScratchSettings(), context=4096, seed=0)
    count = options.tasks * options.group
    player = Player(
        agent=ChatAgent(tokenizer, action_format=Plain()),
        engine=LocalEngine(model, slots=count, context=4096),
        make_env=EnvFactory(max_turns=options.turns),
        executor=SlowHost(options.delay),
        limits=EpisodeLimits(turns=options.turns, tokens=4096),
        sampling=Sampling(max_tokens=12),
        concurrency=count,
    )
    algorithm = with_importance_correction(GRPO(group_size=options.group).build(), how)
    return Trainer(algorithm, Learner(Policy(model)), player)


async def train(options: Options, how: ScheduleSettings) -> tuple[float, list[Step]]:
    """Seconds per step after the first, and what the steps did."""

    def tasks(step: int) -> list[Task]:
        first = step * options.tasks
        numbers = range(first, first + options.tasks)
        return [Task("agentgym/Hotter-v0", f"hotter-{n}", n) for n in numbers]

    schedule = make_scheduler(how, trainer_of(options, how), tasks, {})
    try:
        await schedule.step()
        began = time.perf_counter()
        steps = [await schedule.step() for _ in range(options.steps)]
        return (time.perf_counter() - began) / options.steps, steps
    finally:
        await schedule.close()


def main(options: Options) -> None:
    """A line per schedule."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    last: dict[str, list[Step]] = {}
    for _ in range(options.repetitions):
        for name, how in WAYS.items():
            value, last[name] = asyncio.run(train(options, how))
            seconds[name].append(value)
    for name, values in seconds.items():
        steps = last[name]
        waited = mean(step.metrics["time/rollout"] for step in steps)
        learned = mean(step.metrics["time/update"] for step in steps)
        age = mean(step.metrics.get("policy/staleness", 0.0) for step in steps)
        dropped = sum(step.metrics.get("schedule/dropped", 0.0) for step in steps)
        print(
            f"{name:20} {median(values):6.2f} s a step ({min(values):.2f}-{max(values):.2f})"
            f" {median(seconds['sync']) / median(values):5.2f} x"
            f"  waits {waited:.2f} s, learns {learned:.2f} s, staleness {age:.2f},"
            f" dropped {dropped:.0f} of {options.steps * options.tasks}",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
