"""The time of a check: shares of one budget, in seconds of a machine that does nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_SHARE = 2.0
"""What a check may take, as a multiple of an equal share of what is left: most take far less."""
_CORE = Path("/proc/thread-self/schedstat")
"""Nanoseconds that the thread has run and has waited for a core, on Linux."""


class Cut(NamedTuple):
    """What a check did of what it would have done with more time."""

    tried: int
    wanted: int
    what: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.tried} of {self.wanted} {self.what}"


class Stopwatch:
    """Seconds of a machine that does nothing else.

    While the thread waits for a core, other work holds it, and what the thread calls waits as
    often. So a second counts for the share of it in which the thread ran, of running and waiting
    for a core. Waiting for an answer is neither.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._last, self._core = time.monotonic(), _core()

    def read(self) -> float:
        """Seconds since it was made; to be asked by the thread that made it."""
        now, core = time.monotonic(), _core()
        ran, waited = (new - old for new, old in zip(core, self._core, strict=True))
        share = ran / (ran + waited) if ran > 0 and waited > 0 else 1.0
        self._seconds += share * (now - self._last)
        self._last, self._core = now, core
        return self._seconds


def _core() -> tuple[float, float]:
    """For how long this thread has run, and waited for a core; zeros where that is not known."""
    try:
        ran, waited, _ = _CORE.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return float(ran), float(waited)


class Budget:
    """Shares out the time of an audit, measured by a stopwatch.

    Each check plays its smallest number of repetitions even when nothing is left.

    Args:
        seconds: For all checks together; 0: no limit.
        each: For one check, at most.
        checks: How many there are.
    """

    def __init__(self, seconds: float, each: float, checks: int) -> None:
        self._left = seconds if seconds > 0 else float("inf")
        self._each, self._checks = each, checks
        self._share, self._begun = 0.0, 0.0
        self._watch = Stopwatch()

    def begin(self) -> None:
        """A check begins; what the one before left over goes to those that follow."""
        now = self._watch.read()
        self._left = max(0.0, self._left - (now - self._begun))
        self._share = min(self._each, _SHARE * self._left / max(1, self._checks))
        self._checks, self._begun = self._checks - 1, now

    @property
    def share(self) -> float:
        """Seconds that each part of the running check may take."""
        return self._share

    def hurry(self, part: float = 1.0) -> Callable[[], bool]:
        """Whether what begins now has used up a part of the share of the running check."""
        end = self._watch.read() + part * self._share
        return lambda: self._watch.read() > end
