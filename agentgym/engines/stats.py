"""What an engine counts, and how long it waits for requests to share a model call."""

from __future__ import annotations

from typing import NamedTuple


class EngineStats(NamedTuple):
    """Counters since the engine was built."""

    prompt_computed: int = 0
    """Prompt tokens that went through the model."""
    prompt_reused: int = 0
    """Prompt tokens found in a cache."""
    generated: int = 0
    """Tokens sampled, also for completions that were given up."""
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


def patience(answered: int, rows: int, seconds: float) -> float:
    """How long to wait for the next of those who were just answered to ask again.

    Whoever comes too late for the next model call misses a token. The wait is half of what that
    costs all in flight, so it is short where few were answered or answers are long.

    Args:
        answered: Rows of a model call whose completion ended with it.
        rows: All rows of the call.
        seconds: What the call took.

    Returns:
        Seconds.
    """
    return seconds * answered / rows / 2
