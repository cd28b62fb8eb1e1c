"""Processes of one kind on a cluster, each replaced when it dies."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from agentgym.cluster.broadcast import Broadcaster, Broken, failure_of
from agentgym.cluster.connect import Lost, call, kill
from agentgym.cluster.publication import Publication, Source
from agentgym.errors import AgentGymError, EngineError
from agentgym.utils.concurrency import cancel

LATE = 0.1
"""Seconds between two looks for weights that the trainer is about to publish."""
DEATHS = 5
"""How often in a row a process may die before it is ready."""


@dataclass(eq=False)
class Seat:
    """A running process."""

    actor: Any
    number: int
    busy: int = 0
    """Calls in flight."""


class Roster:
    """Keeps a number of actors of one kind alive, and their weights the newest.

    Args:
        name: Of one of them, for messages.
        size: How many.
        start: Starts the one of a number.
        report: Called with a line about each death and each replacement.
        joined: Called after one became ready or died.
    """

    def __init__(
        self,
        name: str,
        size: int,
        start: Callable[[int], Any],
        report: Callable[[str], None],
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.size = name, size
        self.seats: list[Seat] = []
        self.about: Any = None
        """What the first one reported when it was ready."""
        self.deaths = 0
        """Processes that died so far."""
        self.recovery_seconds = 0.0
        """From a death to its replacement, summed."""
        self._start, self._report, self._joined = start, report, joined
        self.broadcaster: Broadcaster | None = None
        """Broadcasts weights; without, they go through the object store."""
        self.source: Source | None = None
        """Makes the weights that were published last, for those that start later."""
        self._current: Publication | None = None
        """The weights that were published last."""
        self._lock = threading.Lock()
        self._changed = asyncio.Event()
        self.failure: asyncio.Future[Exception] = asyncio.Future()
        """Why no further one can be started."""
        self._keeping: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start all of them and wait until they are ready."""
        self._keeping = [asyncio.create_task(self._keep(number)) for number in range(self.size)]
        await self._until(lambda: len(self.seats) == self.size)

    async def close(self) -> None:
        """End all of them."""
        if self.broadcaster is not None:
            self.broadcaster.close()
        await cancel(self._keeping)

    async def pick(self) -> Seat:
        """The one with the fewest calls in flight.

        Raises:
            AgentGymError: None can be started.
        """
        await self._until(lambda: bool(self.seats))
        return min(self.seats, key=lambda seat: seat.busy)

    def drop(self, seat: Seat) -> None:
        """End one that does not answer as it should; it is replaced."""
        if seat in self.seats:
            self.seats.remove(seat)
            kill(seat.actor)

    def publish(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Load weights into all of them, and into those that start later; from any thread.

        Raises:
            EngineError: One of them refused the weights.
        """
        new = Publication(version, self.source or (lambda: weights))
        if self.broadcaster is None:
            new.put(weights)
        with self._lock:
            self._current = new
            actors = [seat.actor for seat in self.seats]
        if self.broadcaster is None:
            self._load(actors, new)
            return
        try:
            self.broadcaster.send(actors, weights, version)
        except Broken as broken:
            new.put(weights)
            for actor in broken.silent:
                kill(actor)
            loaded = self._load(broken.missed, new)
            self._report(
                f"a broadcast of weights broke ({broken}): {loaded} of {len(actors)} {self.name}s "
                f"got them through the object store"
            )

    def retire(self, *, keep: bool) -> None:
        """The trainer is about to change the weights that were published last; from any thread.

        Args:
            keep: The engines sample with them until then, so that one that starts needs a copy.
        """
        with self._lock:
            current = self._current
        if current is not None:
            current.retire(keep=keep)

    def _load(self, actors: Sequence[Any], weights: Publication) -> int:
        """Load weights from the object store; how many did, the others died."""
        packed, loaded = weights.packed(), 0
        for reference in [actor.load.remote(packed, weights.version) for actor in actors]:
            problem = failure_of(reference)
            if problem is not None and not isinstance(problem, Lost):
                raise EngineError(f"{self.name}: {problem}") from problem
            loaded += problem is None
        return loaded

    async def _keep(self, number: int) -> None:
        """Start the one of a number, and another one whenever it died; never returns."""
        died, unready = 0.0, 0
        while True:
            actor, seat = self._start(number), None
            try:
                self.about = await call(actor.open)
                seat = await self._admitted(Seat(actor, number))
                if died:
                    self._back(number, time.monotonic() - died)
                died, unready = 0.0, 0
                await call(actor.live)
            except Lost as problem:
                died = died or time.monotonic()
                unready += seat is None
                self._died(number, problem, last=unready >= DEATHS)
            except Exception as problem:
                self._fail(problem)
            finally:
                if seat in self.seats:
                    self.seats.remove(seat)
                kill(actor)
                self._notify()
            if self.failure.done():
                return

    async def _admitted(self, seat: Seat) -> Seat:
        """The seat, after it has loaded the newest weights."""
        loaded: Publication | None = None
        while True:
            with self._lock:
                newest = self._current
                if loaded is newest:
                    self.seats.append(seat)
                    break
            assert newest is not None, "it was published"
            packed = await asyncio.to_thread(newest.packed)
            if packed is None:  # The trainer is changing them, and publishes others soon.
                await asyncio.sleep(LATE)
                continue
            await call(seat.actor.load, packed, newest.version)
            loaded = newest
        self._notify()
        return seat

    def _died(self, number: int, problem: Lost, *, last: bool) -> None:
        self.deaths += 1
        self._report(f"{self.name} {number} died and is replaced ({problem})")
        if last:
            text = f"{self.name} {number} died {DEATHS} times before it was ready ({problem})"
            where = "look for its log in Ray's folder, such as /tmp/ray/session_latest/logs"
            self._fail(AgentGymError(f"{text}: {where}"))

    def _fail(self, problem: Exception) -> None:
        if not self.failure.done():
            self.failure.set_result(problem)

    def _back(self, number: int, seconds: float) -> None:
        self.recovery_seconds += seconds
        self._report(f"{self.name} {number} is back after {seconds:.1f} s")

    def _notify(self) -> None:
        self._changed.set()
        self._joined()

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self.failure.done():
                raise self.failure.result()
            self._changed.clear()
            await self._changed.wait()
