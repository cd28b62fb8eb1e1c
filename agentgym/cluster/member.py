"""What every process that samples can be asked: to load weights, and to stay alive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agentgym.cluster.connect import ray_library
from agentgym.cluster.weights import Packed, unpack
from agentgym.engines import Engine
from agentgym.engines.weight_group import Bucket, Meeting, WeightGroup
from agentgym.engines.weight_stream import BrokenStream, LoadsStreams
from agentgym.errors import EngineError


class Member:
    """The process of an actor with an engine; it has ``open``, which returns when it is ready."""

    _group: WeightGroup | None = None

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        raise NotImplementedError

    async def live(self) -> None:
        """Never return: the call fails when the process ends."""
        await asyncio.Event().wait()

    async def sleep(self) -> None:
        """No requests are expected until the next weights."""
        await asyncio.to_thread(self.engine.sleep)

    async def load(self, weights: dict[str, Packed], version: int) -> None:
        """Load weights from the object store."""
        await asyncio.to_thread(self.engine.load, unpack(weights), version)

    async def join(self, meeting: Meeting, rank: int) -> None:
        """Join a group that carries weights.

        Raises:
            BrokenStream: Not all came in time, or the group was left meanwhile.
        """
        await self.leave()
        host = ray_library().util.get_node_ip_address()
        self._group = WeightGroup(meeting, rank, host)
        await asyncio.to_thread(self._group.join)

    async def receive(self, buckets: Sequence[Bucket], version: int) -> None:
        """Load the weights that rank 0 of the group sends.

        Raises:
            BrokenStream: They did not all arrive; the engine waits for the next ones.
        """
        engine, group = self.engine, self._group
        if group is None:
            raise BrokenStream("the group for weights was left")
        if not isinstance(engine, LoadsStreams):
            raise EngineError(
                f"{type(engine).__name__} loads no weights as they arrive: use "
                f"`--cluster.sync store`"
            )
        await asyncio.to_thread(engine.load_stream, group.receive(buckets), version)

    async def leave(self) -> None:
        """Leave the group; a ``join`` or ``receive`` under way breaks."""
        group, self._group = self._group, None
        if group is not None:
            group.close()
