"""Simulated engines: requests share a decoding step, and wait while prompts are read."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from agentgym.planning.clock import Events
from agentgym.planning.laws import Laws


class SimulatedEngine:
    """One replica with continuous batching.

    All its requests advance by one token per decoding step, however many they are; new tokens of a
    prompt are read first, and everything else waits for that. The cache of an episode stays until
    the episode ends, so its context is read once.
    """

    def __init__(self, events: Events, laws: Laws) -> None:
        self._events, self._laws = events, laws
        self._progress = 0.0
        """Decoding steps so far."""
        self._since = 0.0
        """Time of ``_progress``; later than now while prompts are read or weights are loaded."""
        self._tokens = 0.0
        """In the caches of the requests in flight."""
        self._requests: list[tuple[float, int, float, Callable[[], None]]] = []
        """A heap: the step at which each ends, its number, its tokens, what happens then."""
        self._numbers = itertools.count()
        self._due = math.inf
        """When this engine looks next at its requests."""

    def generate(self, context: float, new: float, tokens: float, then: Callable[[], None]) -> None:
        """Sample a completion.

        Args:
            context: Tokens of the prompt.
            new: Those that are not in the cache.
            tokens: Of the completion.
            then: Called when it is there.
        """
        self._advance()
        self._since += self._laws.prefill(new)
        size = context + tokens / 2
        self._tokens += size
        heapq.heappush(self._requests, (self._progress + tokens, next(self._numbers), size, then))
        self._look_again()

    def pause(self, seconds: float) -> None:
        """Sample nothing for a while; requests in flight go on afterwards."""
        self._advance()
        self._since = max(self._since, self._events.now) + seconds

    def _advance(self) -> None:
        """Count the decoding steps until now."""
        now = self._events.now
        if now > self._since:
            if self._requests:
                self._progress += (now - self._since) / self._laws.decoding_step(self._tokens)
            self._since = now

    def _look_again(self) -> None:
        """Look when the next request ends, unless a look is planned before."""
        if self._requests:
            steps = max(0.0, self._requests[0][0] - self._progress)
            when = self._since + steps * self._laws.decoding_step(self._tokens)
            if when < self._due:
                self._due = when
                self._events.at(when, self._look)

    def _look(self) -> None:
        """End the requests that have all their tokens."""
        if self._events.now >= self._due:
            self._due = math.inf
        self._advance()
        ended = []
        while self._requests and self._requests[0][0] <= self._progress + 1e-6:
            _, _, size, then = heapq.heappop(self._requests)
            self._tokens -= size
            ended.append(then)
        self._look_again()
        for then in ended:
            then()
