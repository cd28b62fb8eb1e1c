"""The time of a check: shares of one budget, in seconds of a machine that does nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

_SHARE = 2.0
"""What a check may take, as a multiple of an equal share of what is left: most take far less."""


class Cut(NamedTuple):
    """What a check did of what it would have done with more time."""

    tried: int
    wanted: int
    what: str

    def __str__(self) -> str:
        """In words."""
        return f"{self.tried} of {self.wanted} {self.what}"


class Budget:
    """Shares out the time of an audit.

    On a busy machine a second counts for less: by the load over the number of cores, which is how
    much longer everything takes. Each check plays its smallest number of repetitions even when
    nothing is left.

    Args:
        seconds: For all checks together; 0: no limit.
        each: For one check, at most.
        checks: How many there are.
    """

    def __init__(self, seconds: float, each: float, checks: int) -> None:
        self._left = seconds if seconds > 0 else float("inf")
        self._each, self._checks = each, checks
        self._share, self._spent = 0.0, 0.0
        self._last = time.monotonic()

    def begin(self) -> None:
        """A check begins; what the one before left over goes to those that follow."""
        self._tick()
        self._left = max(0.0, self._left - self._spent)
        self._share = min(self._each, _SHARE * self._left / max(1, self._checks))
        self._checks, self._spent = self._checks - 1, 0.0

    @property
    def share(self) -> float:
        """Seconds that each part of the running check may take."""
        return self._share

    def hurry(self, part: float = 1.0) -> Callable[[], bool]:
        """Whether what begins now has used up a part of the share of the running check."""
        end = self._tick() + part * self._share
        return lambda: self._tick() > end

    def _tick(self) -> float:
        now = time.monotonic()
        self._spent += (now - self._last) / slowness()
        self._last = now
        return self._spent


def slowness() -> float:
    """How many times longer work takes than on an idle machine; 1 where that is not known."""
    try:
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    except (AttributeError, OSError):
        return 1.0
