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
