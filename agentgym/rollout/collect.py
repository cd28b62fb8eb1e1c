"""What an algorithm collects: groups of episodes, played through these protocols."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import numpy as np

from agentgym.types import Completion, Stop, Task, Trajectory
from agentgym.utils.concurrency import together


class LiveEpisode(Protocol):
    """An episode under way, one decision at a time; see ``agentgym.rollout.player.Episode``."""

    @property
    def over(self) -> bool:
        """It has ended."""

    async def think(self) -> Completion | None:
        """Write the next completion; None when there is no room for one, which ends it."""

    async def act(self) -> None:
        """Carry out what was written."""

    async def fork(self, sample: int) -> LiveEpisode:
        """Another episode that goes on from the same state; a completion not yet acted on stays."""

    async def close(self) -> Trajectory:
        """The finished record."""

    async def abandon(self) -> None:
        """Give up a fork that has not gone on; leaves no record."""


class EpisodePlayer(Protocol):
    """Plays episodes; the number of the sample tells the episodes of one task apart."""

    def __call__(self, task: Task, sample: int) -> Awaitable[Trajectory]:
        """Play one episode to its end."""

    def whole(
        self, task: Task, sample: int, *, spoilt: tuple[Stop, ...] = ()
    ) -> Awaitable[Trajectory]:
        """The same within a seat that the caller holds, after attempts that were spoilt."""

    def begin(self, task: Task, sample: int) -> Awaitable[LiveEpisode]:
        """Start an episode that is played decision by decision."""

    def seats(self, count: int) -> AbstractAsyncContextManager[EpisodePlayer]:
        """Room for ``count`` episodes; those begun there and not closed are given up at the end."""

    def tempered(self, factor: float) -> EpisodePlayer:
        """The same at ``factor`` times the temperature, in the same seats."""

    def rng(self, task: Task, name: str) -> np.random.Generator:
        """Randomness for choices about a task other than what the policy says."""


Collect = Callable[[Task, EpisodePlayer], Awaitable[list[Trajectory]]]
"""Turns one task into the group of episodes that will be compared with one another."""


def independent(n: int) -> Collect:
    """``n`` episodes of one task, played side by side from the same start."""

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        return await together(play(task, sample) for sample in range(n))

    return collect
