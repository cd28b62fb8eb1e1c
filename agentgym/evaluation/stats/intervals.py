"""Means over tasks with analytic 95 % intervals; ``bootstrap`` has resampled ones.

``scripts/bench coverage`` measures how often they hold; docs/how-to/intervals.md has its table.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from agentgym.evaluation.stats.student import LEVEL, student_t

Floats = npt.NDArray[np.float64]

IntervalMethod = Literal["analytic", "bootstrap"]
"""How an interval is computed; see docs/how-to/intervals.md for how often each holds."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval, all in the unit of the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Two decimals: ``0.50 [0.41, 0.59]``; without an interval ``0.50``."""
        return self._shown("")

    @property
    def signed(self) -> str:
        """With signs, for a difference: ``+0.12 [-0.01, +0.25]``."""
        return self._shown("+")

    def _shown(self, sign: str) -> str:
        value, *ends = (f"{number:{sign}.2f}" for number in self)
        # One task has a mean, but no spread.
        return value if math.isnan(self.low) else f"{value} [{', '.join(ends)}]"


UNSEEN = 1.25
"""Tasks with an extreme value that a panel may have missed; ``scripts/bench coverage`` chose it."""
MANY = 10**9
"""Degrees of freedom that stand for infinity."""

UNKNOWN = Interval(math.nan, math.nan, math.nan)
"""The mean of no task."""


def mean_interval(values: npt.ArrayLike, support: tuple[float, float] | None = None) -> Interval:
    """Mean over tasks with an analytic interval.

    The tasks are taken as a sample of those the policy may meet, so the interval also covers the
    luck of the panel. The standard error is that of M independent tasks, ``std / sqrt(M)``, which
    contains how episodes of one task resemble each other.

    Without ``support``, a Student-t interval with M - 1 degrees of freedom. With it, Wilson's score
    interval in which the number of trials is the effective one: as many independent trials as would
    give the same standard error. It stays inside the support, is longer on the inner side near its
    ends, and holds where almost all tasks have one value, where mean and t times the error do not.
    Student's t has as many degrees of freedom as the effective number is sure: all where tasks are
    won or lost as a whole. The interval is never narrower than 1.25 more tasks at an end of the
    support would make it.

    Args:
        values: One number per task, (M,).
        support: Least and greatest possible value.

    Returns:
        Mean and interval; three NaN without tasks; without ``support``, NaN as ends for one task.

    Examples:
        >>> print(mean_interval([0.0, 1.0] * 50, (0.0, 1.0)))
        0.50 [0.40, 0.60]
        >>> print(mean_interval([3.0, 5.0, 7.0]))
        5.00 [0.03, 9.97]

    Source:
        Miller 2024 (arXiv:2411.00640), section 2.2, for standard errors over clusters; Wilson 1927,
        with the effective number of trials of Korn and Graubard 1998 (Survey Methodology 24:2);
        Satterthwaite 1946 (Biometrics Bulletin 2:6) for the degrees of freedom.
    """
    column = as_column(values)
    if not column.size:
        return UNKNOWN
    mean = float(column.mean())
    if support is not None:
        return _score_interval(column, mean, *support)
    if column.size == 1:
        return Interval(mean, math.nan, math.nan)
    half = student_t(column.size - 1) * float(column.std(ddof=1)) / math.sqrt(column.size)
    return Interval(mean, mean - half, mean + half)


def _score_interval(column: Floats, mean: float, least: float, greatest: float) -> Interval:
    count, width = column.size, greatest - least
    share = (mean - least) / width
    spread = share * (1 - share)
    offset = (column - mean) / width
    variance = float(np.square(offset).mean())
    # Tasks that are all alike say as much as one episode of each would.
    known = variance > 1e-15 * count and spread > 1e-15
    trials = count * spread / variance if known else float(count)
    t = student_t(_freedom(offset, share, variance) if known else MANY) ** 2
    middle = (share + t / (2 * trials)) / (1 + t / trials)
    half = math.sqrt(t * (spread / trials + t / (4 * trials**2))) / (1 + t / trials)
    unseen = UNSEEN / (count + UNSEEN)
    low = max(0.0, min(middle - half, share - unseen * share))
    high = min(1.0, max(middle + half, share + unseen * (1 - share)))
    return Interval(mean, least + width * low, least + width * high)


def _freedom(offset: Floats, share: float, variance: float) -> int:
    """Degrees of freedom of the ratio of the variance to that of single episodes.

    Where every task is 0 or 1 the ratio is 1 whatever was drawn, and nothing about it is estimated.
    Otherwise Satterthwaite's count, from the spread of what each task adds to the logarithm of the
    ratio; halved, because few tasks show less of that spread than there is, and at most M - 1 for
    the part of the variance that is not fixed by the mean.
    """
    spread = share * (1 - share)
    added = (np.square(offset) - variance) / variance - (1 - 2 * share) / spread * offset
    noise = max(float(np.square(added).mean()), 1 - variance / spread)
    return max(1, int(min(MANY, (offset.size - 1) / max(noise, 1 / MANY))))


def difference_interval(
    before: npt.ArrayLike, after: npt.ArrayLike, support: tuple[float, float] | None = None
) -> Interval:
    """Mean of ``after - before`` over the same tasks, with a Student-t interval over tasks.

    How hard a task is cancels in the difference, so the interval is narrower than the gap between
    two separate ones.

    Args:
        before: One number per task, (M,).
        after: The same tasks in the same order, (M,).
        support: Least and greatest possible value of one task, before or after. Where all
            differences are equal, which leaves no spread to measure, the interval allows for a
            kind of task with an extreme difference and a share of up to ``1 - 0.05**(1/M)``, about
            3/M, that all M may have missed (the "rule of three").

    Raises:
        ValueError: The two sides do not have the same number of tasks.

    Examples:
        >>> print(difference_interval([0.0, 0.5, 0.5], [0.5, 0.5, 1.0]).signed)
        +0.33 [-0.38, +1.05]

    Source:
        Miller 2024 (arXiv:2411.00640), section 4.2: paired differences with standard errors over
        tasks. Hanley and Lippman-Hand 1983 for the rule of three.
    """
    change = paired(before, after)
    if support is None or not change.size:
        return mean_interval(change)
    width = support[1] - support[0]
    if not (change != change[:1]).any():
        value, missed = float(change[0]), 1 - (1 - LEVEL) ** (1 / change.size)
        return Interval(value, value - missed * (width + value), value + missed * (width - value))
    value, low, high = mean_interval(change)
    return Interval(value, max(-width, low), min(width, high))


def paired(before: npt.ArrayLike, after: npt.ArrayLike) -> Floats:
    """``after - before`` by task, (M,).

    Raises:
        ValueError: The two sides do not have the same number of tasks.
    """
    first, second = as_column(before), as_column(after)
    if first.shape != second.shape:
        raise ValueError(
            f"a paired difference needs the same tasks on both sides, "
            f"got {first.size} before and {second.size} after"
        )
    change: Floats = second - first
    return change


def as_column(values: npt.ArrayLike) -> Floats:
    """One number per task, (M,).

    Raises:
        ValueError: The values have another shape.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"expected one value per task, (M,), got shape {column.shape}")
    return column
