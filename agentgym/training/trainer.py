"""One training step, told in order: collect, credit, update, publish. Knows no algorithm.

In which order several steps do so is ``agentgym.training.schedule``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from typing import Any, NamedTuple

import torch

from agentgym.algorithm import Algorithm
from agentgym.batch.batch import Batch, collate
from agentgym.rollout.player import Player, Usage
from agentgym.settings import AlarmSettings
from agentgym.training.alarms import Watch
from agentgym.training.entropy_law import Course
from agentgym.training.learner import Learner
from agentgym.training.metrics import (
    batch_metrics,
    episode_metrics,
    of_credit,
    of_groups,
    staleness,
)
from agentgym.training.mismatch import check_drift
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import together


class Step(NamedTuple):
    """What one training step did."""

    groups: list[list[Trajectory]]
    metrics: dict[str, float]
    warnings: tuple[str, ...] = ()
    """What has gone wrong long enough to be said, each once."""


@dataclass
class Trainer:
    """Owns everything that changes during training."""

    algorithm: Algorithm
    learner: Learner
    player: Player
    step: int = 0
    """Training steps taken; also the policy version that the engine holds."""
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    """When to warn, and when to stop."""

    def __post_init__(self) -> None:
        """Start the credit state; give the learner the networks the algorithm needs."""
        self.learner.attach(self.algorithm)
        self.credit_state = self.algorithm.credit.init()
        self.course = Course()
        """Entropy and score of the steps so far."""
        self.watch = Watch()
        # Of its own: memory that one thread has freed is of no use to another, and updates that
        # take turns on many threads hold the peak of each.
        self._thread = ThreadPoolExecutor(1, "learner")

    async def run_step(self, tasks: Sequence[Task]) -> Step:
        """Collect one group per task, learn from them, publish the weights."""
        began = time.perf_counter()
        groups = await self.play(tasks, self.step)
        self.player.engine.sleep()
        step = await self.learn(groups, time.perf_counter() - began)
        self.publish()
        return step

    async def play(self, tasks: Sequence[Task], number: int) -> list[list[Trajectory]]:
        """Collect one group per task, with the seeds of a step."""
        player = replace(self.player, stream=self.stream(number))
        return await together(self.algorithm.collect(task, player) for task in tasks)

    def stream(self, number: int) -> str:
        """What names a step in every seed."""
        return f"{self.player.stream}/train/{number}"

    async def learn(self, groups: Sequence[list[Trajectory]], waited: float) -> Step:
        """Credit the groups and take the updates; ``waited`` seconds for them are reported."""
        began = time.perf_counter()
        metrics = episode_metrics(groups) | of_groups(groups) | staleness(groups, self.step)
        batch = collate(groups)
        if len(batch):
            loop = asyncio.get_running_loop()
            metrics |= await loop.run_in_executor(
                self._thread, self._learn, batch, current(groups, self.step)
            )
            if batch.mask.any():
                score, entropy = metrics["episode/score"], metrics["policy/entropy"]
                self.course = self.course.after(entropy, score)
                metrics |= self.course.metrics()
        self.watch = self.watch.after(metrics, self.alarms)
        metrics |= self.watch.metrics()
        self.step += 1
        spent = time.perf_counter() - began
        tokens = float(len(batch.tokens))
        metrics |= {
            "time/rollout": waited,
            "time/update": spent,
            "spent/turns": float(self.player.usage.turns),
            "spent/tokens": float(self.player.usage.tokens),
            "tokens": tokens,
            "tokens_per_second": tokens / (waited + spent),
        }
        return Step(list(groups), metrics, self.watch.warnings(self.alarms))

    def _learn(self, batch: Batch, current: Sequence[bool]) -> dict[str, float]:
        batch = self.learner.observe(batch)
        # Older weights differ for a good reason.
        check_drift(batch.only(torch.tensor(current)), self.alarms.max_mismatch)
        metrics = batch_metrics(batch)
        batch, self.credit_state = self.algorithm.credit.apply(batch, self.credit_state, self.step)
        metrics |= of_credit(batch) | self.algorithm.credit.health(self.credit_state, self.step)
        for update in self.algorithm.updates:
            metrics |= self.learner.update(batch, update, self.step)
        return metrics

    def publish(self) -> None:
        """Give the engine the current weights."""
        self.player.engine.load(self.learner.policy.weights(), self.step)

    def state(self) -> dict[str, Any]:
        """Everything but the weights that a resumed run needs."""
        return {
            "step": self.step,
            "learner": self.learner.state(),
            "credit": self.credit_state,
            "course": tuple(self.course),
            "watch": tuple(self.watch),
            "spent": astuple(self.player.usage),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; the weights are already in place."""
        self.step = state["step"]
        self.learner.restore(state["learner"])
        self.credit_state = state["credit"]
        self.course = Course(*state["course"])
        self.watch = Watch(*state["watch"])
        self.player.usage = Usage(*state["spent"])
        self.publish()


def current(groups: Sequence[Sequence[Trajectory]], step: int) -> list[bool]:
    """Of each scored episode, whether all of it is of the weights of this step."""
    return [
        all(turn.completion.version == step for turn in episode.turns)
        for group in groups
        for episode in group
        if episode.stop.scored
    ]


def task_of(tasks: Sequence[Task], position: int, seed: int) -> Task:
    """The task at a position of an endless stream: shuffled passes, a function of the seed."""
    epoch, index = divmod(position, len(tasks))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (2**63))
    return tasks[int(torch.randperm(len(tasks), generator=generator)[index])]
