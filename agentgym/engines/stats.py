"""Throughput counters of an engine, and how long it waits for requests to join a batch."""

from __future__ import annotations

from typing import NamedTuple


class EngineStats(NamedTuple):
    """Counters since the engine was built."""

    prefill_tokens: int = 0
    """Prompt tokens computed by the model."""
    cached_tokens: int = 0
    """Prompt tokens found in the KV cache."""
    generated: int = 0
    """Tokens sampled, including those of cancelled completions."""
    steps: int = 0
    """Model calls."""
    rows: int = 0
    """Rows of all model calls; ``rows / steps`` is the mean batch size."""
    seconds: float = 0.0
    """Time in the model and in sampling."""

    def since(self, earlier: EngineStats) -> EngineStats:
        """What was added after ``earlier``."""
        then = earlier._asdict()
        return self._replace(**{name: now - then[name] for name, now in self._asdict().items()})


def regroup_delay(answered: int, rows: int, seconds: float) -> float:
    """How long to wait for follow-up requests of completions that have just ended.

    An episode that sends its next request too late for the next model call loses one decoding
    step. The delay is half of what that costs all requests in flight, so it is short where few
    completions ended or completions are long.

    Args:
        answered: Rows of a model call whose completion ended with it.
        rows: All rows of the call.
        seconds: Duration of the call.

    Returns:
        Seconds.
    """
    return seconds * answered / rows / 2


class ChatUsage(NamedTuple):
    """What a chat endpoint counted, in its own tokens."""

    requests: int = 0
    """Answered ones."""
    cut: int = 0
    """Completions that ended at their limit."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the service found in its cache."""
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Completion tokens that are thoughts."""
    dollars: float = 0.0
    """Cost, where the service reports it."""

    def plus(self, other: ChatUsage) -> ChatUsage:
        """The sum."""
        more = other._asdict()
        return self._replace(**{name: old + more[name] for name, old in self._asdict().items()})

    def priced(self, prompt: float, completion: float) -> ChatUsage:
        """With the cost at prices in dollars per million tokens, if the service reported none."""
        cost = (self.prompt_tokens * prompt + self.completion_tokens * completion) / 1e6
        return self if self.dollars else self._replace(dollars=cost)

    def __str__(self) -> str:
        """One line."""
        parts = [
            f"{self.requests:,} requests",
            f"{self.prompt_tokens:,} prompt tokens ({self.cached_tokens:,} cached)",
            f"{self.completion_tokens:,} completion tokens ({self.reasoning_tokens:,} of thoughts)",
        ]
        if self.cut:
            parts.append(f"{self.cut:,} completions cut at their limit")
        if self.dollars:
            parts.append(f"{self.dollars:,.4f} dollars")
        return ", ".join(parts)
