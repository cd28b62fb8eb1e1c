"""Results of checks, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """What should hold, in words."""
    verdict: Verdict
    note: str
    """What was looked at; or the violation, in one sentence; or why the check was skipped."""
    seconds: float
    """How long the check took."""
    cut: str = ""
    """What was left out for lack of time, such as ``4 of 16 openings``; empty: nothing."""


class Skipped(Exception):
    """Raised by a check that does not apply; the message states why."""
