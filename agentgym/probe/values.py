"""Values of the states of an episode, from continuations that leave its path.

The value of a state is the expected outcome of a continuation by a policy. Of the continuations
from the state before turn t, a part p takes the recorded turn again and arrives at the next state:

    V(t) = p V(t+1) + (1 - p) E[outcome | another completion]

Where p is known, only the second part is played. Its error counts with (1 - p) squared, so a turn
that the policy would nearly always take costs next to nothing. Where p is unknown, it is 0 here and
every continuation is played.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

Z = 1.959963984540054
"""95 % quantile of the normal distribution, two-sided."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes, in [0, 1], of the continuations from one state that left the path."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    """Sum of the squared outcomes."""

    def plus(self, outcomes: Sequence[float]) -> Outcomes:
        """With further ones."""
        return Outcomes(
            self.count + len(outcomes),
            self.total + sum(outcomes),
            self.squares + sum(value * value for value in outcomes),
        )

    @property
    def mean(self) -> float:
        """Mean outcome; 1/2 without any."""
        return self.total / self.count if self.count else 0.5

    @property
    def spread(self) -> float:
        """Variance of one outcome, with one success and one failure added.

        Without them, a few equal outcomes would pass for certainty.
        """
        count = self.count + 2
        mean = (self.total + 1) / count
        return max(0.0, (self.squares + 1) / count - mean * mean)

    @property
    def error(self) -> float:
        """Variance of the mean; that of a uniform guess without any outcome."""
        return self.spread / self.count if self.count else 1 / 12


class Value(NamedTuple):
    """The value of a state, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


class Estimate(NamedTuple):
    """The value of a state and the variance of its error."""

    mean: float
    variance: float

    def before(self, repeat: float, others: Outcomes) -> Estimate:
        """The estimate of the state one turn earlier.

        Args:
            repeat: Probability that a continuation takes the recorded turn.
            others: Outcomes of the continuations that took another one.
        """
        rest = 1 - repeat
        return Estimate(
            repeat * self.mean + rest * others.mean,
            repeat**2 * self.variance + rest**2 * others.error,
        )

    def interval(self) -> Value:
        """The value with its interval, inside [0, 1]."""
        half = Z * math.sqrt(self.variance)
        return Value(self.mean, max(0.0, self.mean - half), min(1.0, self.mean + half))


def missing(later: Estimate, repeat: float, others: Outcomes, half_width: float) -> int:
    """How many more outcomes a state needs until its interval is at most so wide.

    Args:
        later: The next state's estimate.
        repeat: Probability that a continuation takes the recorded turn.
        others: Outcomes so far.
        half_width: Largest half width of the interval.
    """
    allowed = (half_width / Z) ** 2 - repeat**2 * later.variance
    need = (1 - repeat) ** 2 * others.spread
    if later.before(repeat, others).variance <= (half_width / Z) ** 2 * (1 + 1e-9):
        return 0
    if allowed <= 0:  # The next state is too uncertain: no number of outcomes suffices here.
        return 0
    return max(1, math.ceil(need / allowed) - others.count)


def decisive(values: Sequence[Value]) -> int | None:
    """The turn, from 0, with the largest change of value; None where none is clear.

    A change is clear where the intervals before and after the turn do not overlap.

    Args:
        values: Of the states before each turn, and after the last one.
    """
    changes = [
        (abs(after.value - before.value), turn)
        for turn, (before, after) in enumerate(pairwise(values))
        if after.low > before.high or after.high < before.low
    ]
    return max(changes, key=lambda change: (change[0], -change[1]))[1] if changes else None
