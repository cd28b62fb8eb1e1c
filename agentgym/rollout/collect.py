"""How an algorithm collects groups of episodes: the protocols it plays them through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import numpy as np

from agentgym.types import Completion, Stop, Task, Trajectory
from agentgym.utils.concurrency import gather


class LiveEpisode(Protocol):
    """A running episode, one decision at a time; see ``agentgym.rollout.episode.Episode``."""

    @property
    def done(self) -> bool:
        """The episode has ended."""

    async def generate(self) -> Completion | None:
        """Sample the next completion; None when there is no room for it, which ends the episode."""

    async def step(self) -> None:
        """Parse the completion and execute its action."""

    async def fork(self, sample: int) -> LiveEpisode:
        """A copy that continues from the same state, without a completion not yet executed."""

    async def close(self) -> Trajectory:
        """Release all resources and return the finished trajectory."""

    async def discard(self) -> None:
        """Drop a fork that has not continued; it yields no trajectory."""


class EpisodePlayer(Protocol):
    """Plays episodes; ``sample`` numbers the episodes of one task."""

    def __call__(self, task: Task, sample: int) -> Awaitable[Trajectory]:
        """Play one episode to its end."""

    def play_reserved(
        self, task: Task, sample: int, *, failed_attempts: tuple[Stop, ...] = ()
    ) -> Awaitable[Trajectory]:
        """The same within a slot that the caller reserved, after ``failed_attempts``."""

    def begin(self, task: Task, sample: int) -> Awaitable[LiveEpisode]:
        """Start an episode that is played decision by decision."""

    def reserve(self, count: int) -> AbstractAsyncContextManager[EpisodePlayer]:
        """Reserve slots for ``count`` episodes; episodes left open are discarded at the end."""

    def with_temperature_factor(self, factor: float) -> EpisodePlayer:
        """The same at ``factor`` times the temperature, in the same slots."""

    def rng(self, task: Task, name: str) -> np.random.Generator:
        """Randomness for choices about a task other than sampled tokens."""


Collect = Callable[[Task, EpisodePlayer], Awaitable[list[Trajectory]]]
"""Plays one task and returns the group of episodes that are compared with one another."""


def branching(collect: Collect) -> Collect:
    """Mark a way to collect that forks running episodes; not every player can."""
    collect.branches = True  # type: ignore[attr-defined]
    return collect


def branches(collect: Collect) -> bool:
    """Whether it is marked as forking running episodes."""
    return getattr(collect, "branches", False)


def independent(n: int) -> Collect:
    """``n`` episodes of one task, played side by side from the same start."""

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        return await gather(play(task, sample) for sample in range(n))

    return collect
