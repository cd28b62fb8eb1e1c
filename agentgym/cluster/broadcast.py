"""Weights from rank 0 to all engines at once, over a process group that they form.

An engine that dies breaks the group for all. Engines that have not received everything are
reported, the group is given up, and the next publication forms another one with the engines that
there are then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from agentgym.cluster.connect import Lost, lost, ray_library
from agentgym.engines.weight_group import Meeting, WeightGroup, buckets_of, open_store
from agentgym.engines.weight_stream import BrokenStream
from agentgym.errors import AgentGymError, EngineError

LOOK = 0.02
"""Seconds between two looks at the engines while rank 0 sends."""
GRACE = 10.0
"""Seconds, beyond its time limit, in which an engine must report how a broadcast ended."""


class Broken(AgentGymError):
    """A broadcast did not reach all engines."""

    def __init__(self, reason: str, missed: Sequence[Any], silent: Sequence[Any]) -> None:
        super().__init__(reason)
        self.missed = missed
        """Actors that did not load the weights; some of them may have died."""
        self.silent = silent
        """Actors that did not even answer in time."""


class Broadcaster:
    """Rank 0's end.

    Args:
        backend: ``nccl`` where rank 0 and all engines are on GPUs, else ``gloo``.
        timeout: Seconds until a group is complete, and until all weights have arrived.
    """

    def __init__(self, backend: str, timeout: float) -> None:
        self._backend, self._timeout = backend, timeout
        self._threads = ThreadPoolExecutor(thread_name_prefix="agentgym-broadcast")
        self._group: WeightGroup | None = None
        self._members: list[Any] = []

    def send(self, actors: Sequence[Any], weights: Mapping[str, Tensor], version: int) -> None:
        """Load weights into the engines of these actors.

        Raises:
            Broken: Not all of them loaded the weights.
            EngineError: One of them refused the weights.
        """
        if not actors:
            return
        group = self._group_of(actors)
        buckets = buckets_of(weights)
        calls = {actor.receive.remote(buckets, version): actor for actor in actors}
        self._together(lambda: group.send(weights, buckets), calls)

    def close(self) -> None:
        """Give up the group."""
        group, self._group = self._group, None
        if group is not None:
            group.close()
        members, self._members = self._members, []
        for actor in members:
            actor.leave.remote()

    def _group_of(self, actors: Sequence[Any]) -> WeightGroup:
        """The group of these actors, formed anew when they are others than last time."""
        if self._group is not None and self._members == list(actors):
            return self._group
        self.close()
        self._members = list(actors)
        try:
            return self._form(actors)
        except Broken as broken:
            # Also those that had joined already have no weights yet.
            missed = [actor for actor in actors if actor not in broken.silent]
            raise Broken(str(broken), missed, broken.silent) from broken

    def _form(self, actors: Sequence[Any]) -> WeightGroup:
        host = ray_library().util.get_node_ip_address()
        try:
            store = open_store(host, 0, self._timeout, lead=True)
        except BrokenStream as problem:
            raise Broken(str(problem), [], []) from problem
        meeting = Meeting(host, store.port, len(actors) + 1, self._backend, self._timeout)
        calls = {actor.join.remote(meeting, n): actor for n, actor in enumerate(actors, 1)}
        self._group = group = WeightGroup(meeting, 0, host, store)
        self._together(group.join, calls)
        return group

    def _together(self, ours: Callable[[], None], calls: Mapping[Any, Any]) -> None:
        """Our part of something that rank 0 and all actors do at once.

        The first failure ends it for all: the others would wait for their time limit.

        Args:
            ours: Run in a thread.
            calls: Actor of each call in flight.
        """
        mine, pending = self._threads.submit(ours), list(calls)
        end = time.monotonic() + self._timeout + GRACE
        failed: dict[Any, Exception] = {}
        broken: BaseException | None = None
        while time.monotonic() < end and (pending or not (mine.done() or broken)):
            if pending:
                done, pending = ray_library().wait(pending, timeout=LOOK)
                failed |= {calls[call]: found for call in done if (found := failure_of(call))}
            else:
                time.sleep(LOOK)
            broken = next(iter(failed.values()), mine.exception() if mine.done() else None)
            if broken is not None:
                self.close()
        for found in failed.values():
            if not isinstance(found, BrokenStream | Lost):
                raise EngineError(str(found)) from found
        if broken is None and not pending and mine.done():
            return
        self.close()
        reason = broken or f"not complete within {self._timeout:g} s"
        raise Broken(str(reason), list(failed), [calls[call] for call in pending])


def failure_of(call: Any) -> Exception | None:
    """Why a call that has ended failed: what its method raised, or that its process died."""
    from ray.exceptions import RayError, RayTaskError

    try:
        ray_library().get(call)
    except RayTaskError as problem:
        cause = problem.cause
        return cause if isinstance(cause, Exception) else problem
    except RayError as problem:
        return lost(problem)
    return None
