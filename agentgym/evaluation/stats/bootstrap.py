"""Means over tasks with intervals that resample whole tasks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from agentgym.evaluation.stats.intervals import UNKNOWN, Floats, Interval, as_column, paired
from agentgym.evaluation.stats.student import LEVEL

DRAWS = 10_000
"""Bootstrap draws; the end points of an interval then vary by about 1 % of its width."""
CHUNK = 2**21
"""Most numbers resampled at once: 16 MB, whatever the size of a panel."""


def bootstrap_mean(
    values: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    support: tuple[float, float] | None = None,
    draws: int = DRAWS,
) -> Interval:
    """Mean over tasks with a percentile interval from resampling the tasks.

    The tasks are taken as a sample of those the policy may meet, so the interval also covers
    the luck of the panel. Where nearly every task has one value, resampling shows hardly
    any spread. With a known ``support`` the interval is therefore never narrower than what M tasks
    can prove: a kind of task with a share of up to ``1 - 0.05**(1/M)``, about 3/M, may have
    been missed by all of them (the "rule of three"), with an extreme value.

    Args:
        values: One number per task, (M,).
        rng: Where the draws come from.
        support: Least and greatest possible value.
        draws: Resamples.

    Returns:
        Mean and interval; three NaN when there is no task.

    Examples:
        >>> print(bootstrap_mean([0.0, 1.0] * 50, np.random.default_rng(0)))
        0.50 [0.40, 0.60]

    Source:
        Efron and Tibshirani 1993, chapter 13 (percentile intervals); Hanley and
        Lippman-Hand 1983 (rule of three).
    """
    column = as_column(values)
    if not column.size:
        return UNKNOWN
    mean = float(column.mean())
    found = percentiles(mean, resampled_means(column, rng, draws))
    if support is None:
        return found
    missed = 1.0 - (1.0 - LEVEL) ** (1.0 / column.size)
    low, high = mean - missed * (mean - support[0]), mean + missed * (support[1] - mean)
    return Interval(mean, min(found.low, low), max(found.high, high))


def bootstrap_difference(
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    support: tuple[float, float] | None = None,
    draws: int = DRAWS,
) -> Interval:
    """Mean of ``after - before`` over the same tasks, resampling tasks jointly.

    How hard a task is cancels in the difference, so the interval is narrower than the gap
    between two separate ones, and a gain is real when the interval excludes 0.

    Args:
        before: One number per task, (M,).
        after: The same tasks in the same order, (M,).
        rng: Where the draws come from.
        support: Least and greatest possible value of one task, before or after; used only
            where all differences are equal, because differences of both signs are so rarely
            extreme that allowing for missed ones would make most intervals too wide.
        draws: Resamples.

    Raises:
        ValueError: The two sides do not have the same number of tasks.
    """
    change = paired(before, after)
    if support is None or (change != change[:1]).any():
        return bootstrap_mean(change, rng, draws=draws)
    width = support[1] - support[0]
    return bootstrap_mean(change, rng, support=(-width, width), draws=draws)


def resampled_means(column: Floats, rng: np.random.Generator, draws: int) -> Floats:
    """Means of ``draws`` resamples of a column, (draws,)."""
    means = np.empty(draws)
    step = max(1, CHUNK // column.size)
    for start in range(0, draws, step):
        size = (min(step, draws - start), column.size)
        means[start : start + step] = column[rng.integers(column.size, size=size)].mean(axis=1)
    return means


def percentiles(value: float, means: Floats) -> Interval:
    """A value with the middle 95 % of resampled ones."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
