"""Simulated episodes: they take turns between an engine and an environment."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agentgym.planning.clock import Events
from agentgym.planning.engines import SimulatedEngine
from agentgym.planning.workload import Workload
from agentgym.types import Stop, Task, Trajectory


@dataclass(frozen=True, slots=True)
class SimulatedTrajectory(Trajectory):
    """An episode without its turns."""

    tokens: float = 0.0
    """Of its whole context."""
    version: int = 0
    """Policy version at its start."""


@dataclass
class Played:
    """What was played so far, by all episodes."""

    turns: int = 0
    engine_seconds: float = 0.0
    """Waits for the engine, summed over episodes."""
    env_seconds: float = 0.0
    """The same for environments."""
    most_in_flight: int = 0
    """Episodes at once."""


class SimulatedGroups:
    """Plays groups of episodes; the schedules ask it as they ask a player.

    Args:
        events: In which the episodes happen.
        engines: All episodes of a group are played on the one with the fewest groups.
        workload: What episodes are like.
        group_size: Episodes of a task.
        concurrency: Episodes in flight; None: no limit.
    """

    def __init__(
        self,
        events: Events,
        engines: list[SimulatedEngine],
        workload: Workload,
        group_size: int,
        concurrency: int | None,
    ) -> None:
        self.events, self.workload = events, workload
        self._groups = dict.fromkeys(engines, 0)
        """Groups in flight, by engine."""
        self.group_size, self.concurrency = group_size, concurrency
        self.version = 0
        """Of the weights in the engines."""
        self.played = Played()
        self._in_flight = 0
        self._waiting: deque[_Episode] = deque()

    async def collect(self, task: Task, stream: str) -> list[Trajectory]:
        """The group of a task."""
        name = f"{stream}/{task.id}"
        engine = min(self._groups, key=self._groups.__getitem__)
        self._groups[engine] += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found: list[Trajectory] = []

        def ended(trajectory: Trajectory) -> None:
            found.append(trajectory)
            if len(found) == self.group_size and not done.done():
                done.set_result(None)
                self.events.wake()

        members = [
            _Episode(self, task, sample, engine, random.Random(f"{name}/{sample}"), ended)
            for sample in range(self.group_size)
        ]
        self._waiting.extend(members)
        self._fill()
        try:
            await done
        finally:
            self._groups[engine] -= 1
            for member in members:
                member.cancelled = True
        return sorted(found, key=lambda each: each.sample)

    def metrics(self) -> dict[str, float]:
        """None."""
        return {}

    def pause(self, seconds: float) -> None:
        """Let all engines sample nothing for a while."""
        for engine in self._groups:
            engine.pause(seconds)

    def leave(self) -> None:
        """An episode has ended."""
        self._in_flight -= 1
        self._fill()

    def _fill(self) -> None:
        while self._waiting and (self.concurrency is None or self._in_flight < self.concurrency):
            episode = self._waiting.popleft()
            if not episode.cancelled:
                self._in_flight += 1
                self.played.most_in_flight = max(self.played.most_in_flight, self._in_flight)
                episode.begin()


class _Episode:
    """One episode in flight, or waiting to begin."""

    def __init__(
        self,
        groups: SimulatedGroups,
        task: Task,
        sample: int,
        engine: SimulatedEngine,
        rng: random.Random,
        ended: Callable[[Trajectory], None],
    ) -> None:
        self._groups, self._task, self._sample, self._engine = groups, task, sample, engine
        self._rng, self._ended = rng, ended
        self._context = self._new = float(groups.workload.opening_tokens)
        self._turns = groups.workload.draw_turns(rng)
        self._since = self._tokens = 0.0
        self._version = 0
        self.cancelled = False

    def begin(self) -> None:
        """Start."""
        self._version = self._groups.version
        self._ask()

    def _ask(self) -> None:
        groups = self._groups
        read = groups.workload.read_tokens
        self._context += read
        self._tokens = groups.workload.draw_tokens(self._rng)
        self._since = groups.events.now
        self._engine.generate(self._context, self._new + read, self._tokens, self._act)

    def _act(self) -> None:
        groups, now = self._groups, self._groups.events.now
        groups.played.engine_seconds += now - self._since
        self._context += self._tokens
        self._new, self._since = 0.0, now
        seconds = groups.workload.draw_answer_seconds(self._rng)
        groups.events.at(now + seconds, self._observe)

    def _observe(self) -> None:
        played = self._groups.played
        played.turns += 1
        played.env_seconds += self._groups.events.now - self._since
        self._turns -= 1
        if self._turns and not self.cancelled:
            self._ask()
            return
        if not self.cancelled:
            self._ended(
                SimulatedTrajectory(
                    self._task,
                    self._sample,
                    goal="",
                    opening="",
                    turns=(),
                    stop=Stop.TERMINATED,
                    tokens=self._context,
                    version=self._version,
                )
            )
        self._groups.leave()
