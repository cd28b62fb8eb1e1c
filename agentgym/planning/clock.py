"""Virtual time: an event loop that never waits, and a world in which things happen meanwhile."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Events:
    """What happens at a time, in its order, outside the event loop."""

    def __init__(self) -> None:
        self.now = 0.0
        """Virtual seconds since the start."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._woken = False

    def at(self, when: float, happen: Callable[[], None]) -> None:
        """Call a function at a time."""
        heapq.heappush(self._heap, (when, next(self._numbers), happen))

    def wake(self) -> None:
        """Let the event loop run: something in it is ready."""
        self._woken = True

    def pass_time(self, until: float) -> None:
        """Let things happen until a time, or until one of them wakes the loop.

        Raises:
            RuntimeError: Nothing happens any more, and there is no end.
        """
        heap = self._heap
        while not self._woken and heap and heap[0][0] <= until:
            when, _, happen = heapq.heappop(heap)
            self.now = max(self.now, when)
            happen()
        if not self._woken:
            if until == float("inf"):
                raise RuntimeError("nothing will ever happen: every task waits for another one")
            self.now = max(self.now, until)
        self._woken = False


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is that of ``events``, which happen while it waits."""

    def __init__(self) -> None:
        self.events = Events()
        super().__init__(_Waiting(self.events))

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.events.now


class _Waiting(selectors.DefaultSelector):
    """Waits for nothing of this world."""

    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events

    def select(self, timeout: float | None = None) -> list[Any]:
        """Let virtual time pass."""
        self._events.pass_time(float("inf") if timeout is None else self._events.now + timeout)
        return []


def run_virtually(main: Callable[[Events], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end in virtual time.

    Raises:
        RuntimeError: Every task waits for another one.
    """
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop.events))
