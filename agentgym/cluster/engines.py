"""Engines on a cluster: each in a process of its own, shared by all players."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.cluster.connect import Lost, call
from agentgym.cluster.member import Member
from agentgym.cluster.roster import Roster
from agentgym.engines import Engine
from agentgym.errors import EngineError
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

MakeEngine = Callable[[], AbstractContextManager[Engine]]
"""Makes an engine in its process; closed at the end."""


class EngineFacts(NamedTuple):
    """What the clients of an engine must know."""

    context: int
    takes_adapters: bool
    stream_device: str
    """Type of the device on which it reads weights that are broadcast."""

    @classmethod
    def of(cls, engine: Engine) -> EngineFacts:
        """About an engine."""
        return cls(engine.context, engine.takes_adapters, getattr(engine, "stream_device", "cpu"))


class EngineActor(Member):
    """The process of one engine.

    Args:
        make: Makes the engine; a value that ``pickle`` can send.
    """

    def __init__(self, make: MakeEngine) -> None:
        self._make = make
        self._open = ExitStack()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, after ``open``."""
        assert self._engine is not None, "it was opened"
        return self._engine

    async def open(self) -> EngineFacts:
        """Start the engine; returns when it can sample."""
        self._engine = await asyncio.to_thread(self._open.enter_context, self._make())
        return EngineFacts.of(self._engine)

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion."""
        return await self.engine.generate(prompt, sampling)

    async def finish(self, context: Sequence[int]) -> None:
        """The episode with this context has ended."""
        self.engine.finish(context)


class EnginePool:
    """The engines as a player sees them."""

    def __init__(self, actors: Sequence[Any], facts: EngineFacts) -> None:
        self.facts = facts
        self._load: dict[Any, int] = dict.fromkeys(actors, 0)
        """Sessions per engine."""
        self._changed = asyncio.Event()

    def use(self, actors: Sequence[Any]) -> None:
        """The engines that there are now."""
        self._load = {actor: self._load.get(actor, 0) for actor in actors}
        self._changed.set()

    def session(self) -> EngineSession:
        """An engine for one group, whose episodes begin alike."""
        return EngineSession(self)

    async def pick(self) -> Any:
        """The engine with the fewest sessions; waits while there is none."""
        while not self._load:
            self._changed.clear()
            await self._changed.wait()
        actor = min(self._load, key=lambda each: self._load[each])
        self._load[actor] += 1
        return actor

    def leave(self, actor: Any) -> None:
        """A session has ended there."""
        if actor in self._load:
            self._load[actor] -= 1

    def lost(self, actor: Any) -> None:
        """An engine does not answer."""
        self._load.pop(actor, None)


class EngineSession:
    """An ``Engine`` that stays on one engine of the cluster, where the cache of its contexts is.

    When that engine dies, its requests are sent again to another one, with the same seeds.
    """

    def __init__(self, pool: EnginePool) -> None:
        self.context, self.takes_adapters, _ = pool.facts
        self._pool = pool
        self._actor: Any = None
        self._picking = asyncio.Lock()

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion."""
        while True:
            actor = await self._engine()
            try:
                completion: Completion = await call(actor.generate, prompt, sampling)
            except Lost:
                self._pool.lost(actor)
                if self._actor is actor:
                    self._actor = None
            else:
                return completion

    def finish(self, context: Sequence[int]) -> None:
        """The episode with this context has ended."""
        if self._actor is not None:
            self._actor.finish.remote(context)

    def sleep(self) -> None:
        """Nothing to do: rank 0 tells the engines."""

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Not here: rank 0 publishes."""
        raise EngineError("weights are published to the engines, not to their clients")

    def close(self) -> None:
        """The group has been played."""
        if self._actor is not None:
            self._pool.leave(self._actor)

    async def _engine(self) -> Any:
        async with self._picking:
            if self._actor is None:
                self._actor = await self._pool.pick()
            return self._actor


class PublishingEngine:
    """The engine of rank 0, which does not sample: what it loads is published to the samplers.

    Args:
        samplers: Engines, or players with engines of their own.
        facts: About each of them.
    """

    def __init__(self, samplers: Roster, facts: EngineFacts) -> None:
        self.context, self.takes_adapters, _ = facts
        self._samplers = samplers

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Not here: the players sample."""
        raise EngineError("rank 0 of a cluster does not sample")

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: the players tell their engines."""

    def sleep(self) -> None:
        """No requests are expected until the next weights."""
        for seat in self._samplers.seats:
            seat.actor.sleep.remote()

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Publish weights."""
        self._samplers.publish(weights, version)
