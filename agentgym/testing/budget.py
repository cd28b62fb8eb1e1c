"""The time of a check: shares of one budget, without what other work on the machine takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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
    """Seconds without those in which the thread was ready to run and waited for a core.

    So other work on the machine hardly counts where an environment runs in this process. What a
    server or a browser waits for is not seen, and counts.
    """

    def __init__(self) -> None:
        self._began = time.monotonic() - _waited()

    def read(self) -> float:
        """Seconds since it was made; to be asked by the thread that made it."""
        return time.monotonic() - _waited() - self._began


def _waited() -> float:
    """Seconds for which this thread has waited for a core; 0 where that is not known."""
    try:
        return int(_CORE.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


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
        self._share = min(self._each, self._left / max(1, self._checks))
        self._checks, self._begun = self._checks - 1, now

    @property
    def share(self) -> float:
        """Seconds that each part of the running check may take."""
        return self._share

    def hurry(self, part: float = 1.0) -> Callable[[], bool]:
        """Whether what begins now has used up a part of the share of the running check."""
        end = self._watch.read() + part * self._share
        return lambda: self._watch.read() > end
