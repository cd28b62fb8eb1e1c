"""Playing episodes: the only loop that joins environment, agent and engine."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from agentgym.rollout.episode import Episode
from agentgym.rollout.setup import EpisodeSetup
from agentgym.types import Stop, Task, Trajectory


@dataclass(kw_only=True)
class Player(EpisodeSetup):
    """Plays episodes: environments run where the executor puts them, the engine in the event loop.

    Each completion is seeded by (stream, task, sample, turn), so results depend neither on the
    number of episodes in flight nor on the order in which they end.
    """

    concurrency: int = 64
    """Episodes in flight."""
    retries: int = 5
    """Further attempts at an episode whose environment failed, with the same seeds."""

    def __post_init__(self) -> None:
        """Set up the slots for episodes in flight."""
        super().__post_init__()
        self._slots = asyncio.Semaphore(self.concurrency)
        self._queue = asyncio.Lock()

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode; if the environment fails, again, up to ``retries`` times.

        Raises:
            UnknownTask: The environment has no such task.
            MissingExtra: The package of the environment is not installed.
        """
        async with self._slots:
            return await self.play_reserved(task, sample)

    async def play_reserved(
        self, task: Task, sample: int, *, failed_attempts: tuple[Stop, ...] = ()
    ) -> Trajectory:
        """The same within a slot that the caller holds, after ``failed_attempts``."""
        while True:
            played = replace(await self.attempt(task, sample), failed_attempts=failed_attempts)
            if played.stop.scored or len(failed_attempts) >= self.retries:
                return await self.finished(played)
            failed_attempts = (*failed_attempts, played.stop)

    async def attempt(self, task: Task, sample: int) -> Trajectory:
        """Play an episode once, whether or not the environment fails."""
        episode = await self.begin(task, sample)
        try:
            while not episode.done:
                await episode.generate()
                await episode.step()
        finally:
            await episode.release()
        return episode.trajectory()

    async def begin(self, task: Task, sample: int) -> Episode:
        """Start an episode that the caller plays decision by decision and closes.

        The caller must hold a slot for it, see ``reserve``.
        """
        episode = Episode(self, task, sample)
        try:
            await episode.open()
        except BaseException:
            await episode.release()
            raise
        return episode

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for one episode that the caller plays itself, for example a fork."""
        async with self._slots:
            yield

    @asynccontextmanager
    async def reserve(self, count: int) -> AsyncIterator[Player]:
        """Reserve slots for ``count`` episodes at once, at most ``concurrency``.

        Episodes that the yielded player starts, and their forks, are discarded at the end if they
        were not closed, for example when a sibling failed. One caller reserves at a time, so two
        callers cannot deadlock.
        """
        wanted, held = min(count, self.concurrency), 0
        reserved = copy.copy(self)
        reserved.running = set()
        try:
            async with self._queue:
                while held < wanted:
                    await self._slots.acquire()
                    held += 1
            yield reserved
        finally:
            for episode in list(reserved.running):
                await episode.release()
            for _ in range(held):
                self._slots.release()

    def with_stream(self, stream: str) -> Player:
        """The same with the seeds of another stream, in the same slots."""
        twin = copy.copy(self)
        twin.stream = stream
        return twin

    def with_temperature_factor(self, factor: float) -> Player:
        """The same at ``factor`` times the temperature, in the same slots."""
        twin = copy.copy(self)
        temperature = factor * self.sampling.temperature
        twin.sampling = replace(self.sampling, temperature=temperature)
        return twin
