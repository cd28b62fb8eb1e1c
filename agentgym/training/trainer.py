"""One training step: collect, credit, update, publish. Knows no algorithm.

``agentgym.training.schedule`` decides how the parts of several steps overlap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import Algorithm
from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.rollout.player import Player
from agentgym.rollout.setup import Usage
from agentgym.settings import AlarmSettings
from agentgym.training.alarms import AlarmState
from agentgym.training.credited import Advantages, by_turn, take_advantages, with_positions
from agentgym.training.entropy_law import EntropyFit
from agentgym.training.groups import Groups, LocalGroups
from agentgym.training.learner import Learner
from agentgym.training.metrics import (
    batch_metrics,
    credit_metrics,
    episode_metrics,
    group_metrics,
    staleness,
)
from agentgym.training.mismatch import check_mismatch
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import gather


class Step(NamedTuple):
    """Result of one training step."""

    groups: list[list[Trajectory]]
    metrics: dict[str, float]
    warnings: tuple[str, ...]
    """Alarms that have been active for long enough; each is given once."""
    advantages: list[list[Advantages]]
    """Of the episodes of ``groups``, one number per sampled token; see ``credited``."""


@dataclass
class Trainer:
    """Owns all state that changes during training."""

    algorithm: Algorithm
    learner: Learner
    player: Player
    step: int = 0
    """Training steps taken; also the policy version of the engine."""
    alarms: AlarmSettings = field(default_factory=AlarmSettings)
    """When to warn, and when to stop."""
    groups: Groups | None = None
    """Where groups come from; unset: the player plays them."""
    changing: Callable[[], None] = lambda: None
    """Called in the learner's thread before the weights change."""

    def __post_init__(self) -> None:
        """Initialise the credit state; add the networks the algorithm needs to the learner."""
        self.learner.attach(self.algorithm)
        self.credit_state = self.algorithm.credit.init()
        self.entropy_fit = EntropyFit()
        """Entropy and score of the steps so far."""
        self.alarm_state = AlarmState()
        # One thread for all updates: freed memory stays with its thread, so updates on several
        # threads would hold the peak of each.
        self._thread = ThreadPoolExecutor(1, "learner")
        self._waited = replace(self.player.usage)
        self._sync_seconds = 0.0
        """Duration of the last publication."""

    async def run_step(self, tasks: Sequence[Task]) -> Step:
        """Collect one group per task, learn from them, publish the weights."""
        start = time.perf_counter()
        groups = await self.play(tasks, self.step)
        self.player.engine.sleep()
        step = await self.learn(groups, time.perf_counter() - start)
        await self.publish()
        return step

    async def play(self, tasks: Sequence[Task], number: int) -> list[list[Trajectory]]:
        """Collect one group per task, with the seeds of a step."""
        stream, groups = self.stream(number), self.source()
        return await gather(groups.collect(task, stream) for task in tasks)

    def source(self) -> Groups:
        """Where groups come from; what is played in this process shares one limit on episodes."""
        return self.groups or LocalGroups(self.algorithm.collect, replace(self.player))

    def stream(self, number: int) -> str:
        """Name of a step in the derivation of seeds."""
        return f"{self.player.stream}/train/{number}"

    async def learn(self, groups: Sequence[list[Trajectory]], rollout_seconds: float) -> Step:
        """Credit the groups and update the policy; the seconds of their rollout are logged."""
        start = time.perf_counter()
        metrics = episode_metrics(groups) | group_metrics(groups) | staleness(groups, self.step)
        batch = collate(groups)
        advantages: list[list[Advantages]] = [[() for _ in group] for group in groups]
        if len(batch):
            loop = asyncio.get_running_loop()
            learned, credited = await loop.run_in_executor(
                self._thread, self._learn, batch, on_policy(groups, self.step)
            )
            metrics |= learned
            advantages = by_turn(groups, credited)
            if batch.mask.any():
                score, entropy = metrics["episode/score"], metrics["policy/entropy"]
                self.entropy_fit = self.entropy_fit.updated(entropy, score)
                metrics |= self.entropy_fit.metrics()
        self.alarm_state = self.alarm_state.updated(metrics, self.alarms)
        metrics |= self.alarm_state.metrics()
        self.step += 1
        update_seconds = time.perf_counter() - start
        tokens = float(len(batch.tokens))
        metrics |= self._waits(rollout_seconds) | {
            "time/rollout": rollout_seconds,
            "time/update": update_seconds,
            "time/sync": self._sync_seconds,
            "spent/turns": float(self.player.usage.turns),
            "spent/tokens": float(self.player.usage.tokens),
            "spent/user_tokens": float(self.player.usage.user_tokens),
            "published/megabytes": self.learner.policy.megabytes(
                adapters=self.player.engine.takes_adapters
            ),
            "tokens": tokens,
            "tokens_per_second": tokens / (rollout_seconds + update_seconds),
        }
        if self.groups is not None:
            metrics |= self.groups.metrics()
        return Step(list(groups), metrics, self.alarm_state.warnings(self.alarms), advantages)

    def _learn(
        self, batch: Batch, current: Sequence[bool]
    ) -> tuple[dict[str, float], Float[Tensor, " P"]]:
        """Metrics, and the advantage of every position of the batch."""
        size = len(batch.tokens)
        batch = self.learner.observe(batch)
        # Tokens of older weights differ by design.
        check_mismatch(batch.only(torch.tensor(current)), self.alarms.max_mismatch)
        metrics = batch_metrics(batch)
        batch, self.credit_state = self.algorithm.credit.apply(
            with_positions(batch), self.credit_state, self.step
        )
        batch, advantages = take_advantages(batch, size)
        metrics |= credit_metrics(batch) | self.algorithm.credit.health(
            self.credit_state, self.step
        )
        self.changing()
        for update in self.algorithm.updates:
            metrics |= self.learner.update(batch, update, self.step)
        return metrics, advantages

    async def publish(self) -> None:
        """Load the current weights into the engine; episodes in flight continue meanwhile."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._publish)

    def _publish(self) -> None:
        start = time.perf_counter()
        engine = self.player.engine
        engine.load(self.learner.weights(adapters=engine.takes_adapters), self.step)
        self._sync_seconds = time.perf_counter() - start

    def _waits(self, rollout_seconds: float) -> dict[str, float]:
        """The rollout's time, divided by what its episodes waited for since the last step."""
        now, before = self.player.usage, self._waited
        self._waited = replace(now)
        engine = now.engine_seconds - before.engine_seconds
        env = now.env_seconds - before.env_seconds
        share = engine / (engine + env) if engine + env else 0.0
        return {
            "time/engine": rollout_seconds * share,
            "time/env": rollout_seconds * (1 - share),
        }

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the weights."""
        return {
            "step": self.step,
            "learner": self.learner.state(),
            "credit": self.credit_state,
            "entropy_fit": tuple(self.entropy_fit),
            "alarm_state": tuple(self.alarm_state),
            "spent": astuple(self.player.usage),
        }

    def restore(self, state: dict[str, Any], checkpoint: Path | None = None) -> None:
        """Continue from ``state``, and the checkpoint that holds it; weights are loaded already."""
        self.step = state["step"]
        self.learner.restore(state["learner"], checkpoint)
        self.credit_state = state["credit"]
        self.entropy_fit = EntropyFit(*state["entropy_fit"])
        self.alarm_state = AlarmState(*state["alarm_state"])
        self.player.usage = Usage(*state["spent"])
        self._waited = replace(self.player.usage)
        self._publish()


def on_policy(groups: Sequence[Sequence[Trajectory]], step: int) -> list[bool]:
    """For each scored episode, whether the weights of this step sampled all of it."""
    return [
        all(turn.completion.version == step for turn in episode.turns)
        for group in groups
        for episode in group
        if episode.stop.scored
    ]


def task_of(tasks: Sequence[Task], position: int, seed: int) -> Task:
    """The task at a position of an endless stream of shuffled passes; a function of the seed."""
    epoch, index = divmod(position, len(tasks))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (2**63))
    return tasks[int(torch.randperm(len(tasks), generator=generator)[index])]
