"""Values of the states of an episode, from continuations that leave its path.

The value of a state s is the expected outcome of a continuation by a policy. Of the continuations
from s, a part p(a) takes turn a, which was recorded in some episode, and arrives at a state s(a) of
that episode:

    V(s) = sum of p(a) V(s(a)) + (1 - sum of p(a)) E[outcome | another completion]

Where the probabilities are known, only the last part is played. Its error counts with the square of
its probability, so turns that the policy would nearly always take cost next to nothing. Where they
are unknown, they are 0 here and every continuation is played.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from agentgym.probe.strata import Share

Z = 1.959963984540054
"""95 % quantile of the normal distribution, two-sided."""


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

    def interval(self) -> Value:
        """The value with its interval, inside [0, 1]."""
        half = Z * math.sqrt(self.variance)
        return Value(self.mean, max(0.0, self.mean - half), min(1.0, self.mean + half))


class Known(NamedTuple):
    """What the recorded turns from a state contribute to its value."""

    probability: float = 0.0
    """That a continuation takes one of them."""
    mean: float = 0.0
    """Values of the states after them, each weighted with its probability."""
    variance: float = 0.0
    """Of the error of that sum."""

    @classmethod
    def of(cls, branches: Iterable[tuple[float, Estimate]]) -> Known:
        """From the probabilities of recorded turns, and the estimates of the states after them."""
        probability, mean, variance = 0.0, 0.0, 0.0
        for chance, after in branches:
            probability += chance
            mean += chance * after.mean
            variance += chance**2 * after.variance
        return cls(probability, mean, variance)

    @property
    def rest(self) -> float:
        """Probability of all other completions."""
        return max(0.0, 1 - self.probability)

    def with_others(self, others: Share) -> Estimate:
        """The estimate of the state, with the continuations that took another turn."""
        rest = self.rest
        return Estimate(self.mean + rest * others.mean, self.variance + rest**2 * others.error)


def missing(known: Known, others: Share, half_width: float) -> int:
    """How many more continuations a state needs until its interval is at most so wide.

    Args:
        known: What its recorded turns contribute.
        others: The continuations so far.
        half_width: Largest half width of the interval.
    """
    aim = (half_width / Z) ** 2
    allowed, need = aim - known.variance, known.rest**2 * others.spread
    if known.with_others(others).variance <= aim * (1 + 1e-9):
        return 0
    if allowed <= 0:  # The next states are too uncertain: no number suffices here.
        return 0
    return max(1, math.ceil(need / allowed * others.per_trial) - others.continuations)


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
