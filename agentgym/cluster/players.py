"""Players on a cluster: each plays whole groups in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from agentgym.cluster.connect import Lost, call
from agentgym.cluster.engines import EngineFacts, EnginePool
from agentgym.cluster.member import Member
from agentgym.cluster.roster import Roster
from agentgym.engines import Engine
from agentgym.rollout.collect import Collect
from agentgym.rollout.player import Player
from agentgym.rollout.setup import Usage
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import cancel


class Playing(NamedTuple):
    """What a player's process plays with."""

    player: Player
    collect: Collect
    """Of the algorithm."""


MakePlaying = Callable[[EnginePool | None], AbstractAsyncContextManager[Playing]]
"""Makes it there, with the engines of the cluster or, without, an engine of its own."""


class PlayerActor(Member):
    """The process of one player.

    Args:
        make: Makes what it plays with; a value that ``pickle`` can send.
        engines: Handles of the engines; None where the player has its own.
        facts: About each of them.
    """

    def __init__(
        self, make: MakePlaying, engines: list[Any] | None, facts: EngineFacts | None
    ) -> None:
        self._make = make
        self._engines = None if engines is None or facts is None else EnginePool(engines, facts)
        self._open = AsyncExitStack()

    @property
    def engine(self) -> Engine:
        """The engine of its own; with engines of the cluster, their client."""
        return self._playing.player.engine

    async def open(self) -> EngineFacts:
        """Make the player; returns when it can play."""
        self._playing = await self._open.enter_async_context(self._make(self._engines))
        return EngineFacts.of(self.engine)

    async def collect(self, task: Task, stream: str) -> tuple[list[Trajectory], Usage]:
        """The group of a task, and what it cost."""
        with self._player(stream) as player:
            return await self._playing.collect(task, player), player.usage

    async def episode(
        self, task: Task, sample: int, stream: str, temperature: float
    ) -> tuple[Trajectory, Usage]:
        """One episode with the reward of its environment, and what it cost."""
        with self._player(stream) as player:
            player.rescore = None
            player.sampling = replace(player.sampling, temperature=temperature)
            return await player(task, sample), player.usage

    async def use(self, engines: list[Any]) -> None:
        """Sample with these engines from now on."""
        assert self._engines is not None, "the player has an engine of its own"
        self._engines.use(engines)

    @contextmanager
    def _player(self, stream: str) -> Iterator[Player]:
        """The player for one group: its cost is counted apart, and it stays on one engine."""
        player = self._playing.player.with_stream(stream)
        player.usage = Usage()
        if self._engines is None:
            yield player
            return
        with closing(self._engines.session()) as player.engine:
            yield player


@dataclass(frozen=True)
class Losses:
    """What died in a run so far, and what was done again because of it."""

    replayed: int = 0
    """Groups and episodes that were lost with their player and played again."""
    deaths: int = 0
    """Players and engines that died."""
    recovery_seconds: float = 0.0
    """From their deaths to their replacements, summed."""
    restarts: int = 0
    """Starts from a checkpoint, after each of which the batch under way is played again."""
    repeated_steps: int = 0
    """Complete steps since these checkpoints, which were taken again."""


@dataclass(eq=False)
class ClusterGroups:
    """Groups and episodes that the players of a cluster play.

    One that was lost with its process is played again by another, with the same seeds. It counts
    once, since its answer comes once.
    """

    players: Roster
    engines: Roster | None
    usage: Usage
    """Gets what the groups cost."""
    before: Losses = Losses()
    """Of earlier processes that led the run."""
    keep: Callable[[Losses], None] = lambda losses: None
    """Called with the losses at every step."""
    replayed: int = 0
    """Groups and episodes that were played again."""

    async def collect(self, task: Task, stream: str) -> list[Trajectory]:
        """The group of a task."""
        group: list[Trajectory] = await self._ask("collect", task, stream)
        return group

    async def episode(self, task: Task, sample: int, stream: str, temperature: float) -> Trajectory:
        """One episode with the reward of its environment."""
        played: Trajectory = await self._ask("episode", task, sample, stream, temperature)
        return played

    def metrics(self) -> dict[str, float]:
        """The losses so far."""
        rosters = [self.players] + ([] if self.engines is None else [self.engines])
        seconds = sum(each.recovery_seconds for each in rosters)
        losses = replace(
            self.before,
            replayed=self.before.replayed + self.replayed,
            deaths=self.before.deaths + sum(each.deaths for each in rosters),
            recovery_seconds=self.before.recovery_seconds + seconds,
        )
        self.keep(losses)
        return {f"cluster/{name}": float(value) for name, value in asdict(losses).items()}

    async def _ask(self, method: str, *arguments: Any) -> Any:
        while True:
            seat = await self.players.pick()
            seat.busy += 1
            try:
                played, usage = await self._answer(getattr(seat.actor, method), *arguments)
            except Lost:
                self.players.drop(seat)
                self.replayed += 1
            else:
                self._add(usage)
                return played
            finally:
                seat.busy -= 1

    async def _answer(self, method: Any, *arguments: Any) -> Any:
        """The answer of a player, which waits for engines as long as there may be new ones."""
        answer = asyncio.ensure_future(call(method, *arguments))
        failures = [] if self.engines is None else [self.engines.failure]
        try:
            await asyncio.wait([answer, *failures], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise failures[0].result()
            return answer.result()
        finally:
            await cancel([answer])

    def _add(self, usage: Usage) -> None:
        for field in fields(usage):
            name = field.name
            setattr(self.usage, name, getattr(self.usage, name) + getattr(usage, name))
