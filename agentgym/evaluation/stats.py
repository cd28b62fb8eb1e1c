"""Success rates with error bars: unbiased pass@k, and intervals that resample whole tasks.

Episodes of one task resemble each other, so an interval that treats them as independent is far
too narrow. Every interval here therefore resamples tasks (or training seeds), never episodes,
and two policies are compared on the same tasks, pair by pair.

Legend: M tasks, S training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

DRAWS = 10_000
"""Bootstrap draws; the end points of an interval then vary by about 1 % of its width."""
LEVEL = 0.95
"""Nominal coverage of every interval in this package."""
_CHUNK = 2**21
"""Most numbers resampled at once: 16 MB, whatever the size of a panel."""

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with its 95 % interval, all in the unit of the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Two decimals: ``0.50 [0.41, 0.59]``."""
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k episodes, drawn from n without replacement, succeeded.

    Args:
        n: Episodes played on the task.
        c: How many of them succeeded.
        k: Episodes drawn, 1 to n.

    Raises:
        ValueError: k exceeds n, or c is not in 0..n.

    Examples:
        >>> pass_at_k(4, 2, 1)
        0.5
        >>> pass_at_k(4, 0, 4)
        0.0

    Source:
        Chen et al. 2021 (arXiv:2107.03374), equation 1; unbiased for ``1 - (1 - p)**k``.
    """
    _check_counts(n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """Chance that all of k episodes, drawn from n without replacement, succeeded.

    Args:
        n: Episodes played on the task.
        c: How many of them succeeded.
        k: Episodes drawn, 1 to n.

    Raises:
        ValueError: k exceeds n, or c is not in 0..n.

    Examples:
        >>> pass_hat_k(4, 2, 1)
        0.5
        >>> pass_hat_k(4, 3, 4)
        0.0

    Source:
        Yao et al. 2024 (arXiv:2406.12045), section 3; unbiased for ``p**k``.
    """
    _check_counts(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


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
    column = _column(values)
    if not column.size:
        return Interval(math.nan, math.nan, math.nan)
    mean = float(column.mean())
    found = _percentiles(mean, _resampled_means(column, rng, draws))
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
    first, second = _column(before), _column(after)
    if first.shape != second.shape:
        raise ValueError(
            f"a paired difference needs the same tasks on both sides, "
            f"got {first.size} before and {second.size} after"
        )
    change = second - first
    if support is None or (change != change[:1]).any():
        return bootstrap_mean(change, rng, draws=draws)
    width = support[1] - support[0]
    return bootstrap_mean(change, rng, support=(-width, width), draws=draws)


def bootstrap_over_seeds(
    values: npt.ArrayLike, rng: np.random.Generator, *, draws: int = DRAWS
) -> Interval:
    """Mean over training seeds and tasks, resampling both.

    Each draw picks S seeds and, independently, M tasks with replacement and averages the block.
    With fewer than about ten seeds the bootstrap is too narrow: prefer ``gain_over_seeds``,
    which is valid for few seeds but conditions on the panel.

    Args:
        values: One number per seed and task, such as a paired gain, (S, M).
        rng: Where the draws come from.
        draws: Resamples.

    Raises:
        ValueError: ``values`` is not a non-empty matrix.
    """
    block = np.asarray(values, dtype=np.float64)
    if block.ndim != 2 or not block.size:
        raise ValueError(f"expected one value per seed and task, (S, M), got shape {block.shape}")
    seeds, tasks = block.shape
    seed_share = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    means = np.empty(draws)
    step = max(1, _CHUNK // tasks)
    for start in range(0, draws, step):
        share = seed_share[start : start + step]
        task_share = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=len(share)) / tasks
        means[start : start + step] = ((share @ block) * task_share).sum(axis=1)
    return _percentiles(float(block.mean()), means)


def gain_over_seeds(values: Sequence[float]) -> Interval:
    """Mean over training seeds with a Student-t interval.

    The right interval for "does the method help when trained again", on the panel as it is.

    Args:
        values: One number per training seed, such as the gain in pass@1; at least two.

    Raises:
        ValueError: There are fewer than two seeds.

    Examples:
        >>> print(gain_over_seeds([0.1, 0.2, 0.3]))
        0.20 [-0.05, 0.45]
    """
    column = _column(values)
    if column.size < 2:
        raise ValueError(f"an interval over training seeds needs at least 2, got {column.size}")
    mean = float(column.mean())
    half = student_t(column.size - 1) * float(column.std(ddof=1)) / math.sqrt(column.size)
    return Interval(mean, mean - half, mean + half)


def sign_flip_p(
    differences: npt.ArrayLike, rng: np.random.Generator, *, draws: int = DRAWS
) -> float:
    """Two-sided p-value of a paired randomization test of "the mean difference is 0".

    Under the null hypothesis the sign of each task's difference is arbitrary. Up to 12 tasks all
    sign patterns are counted; for more, random ones, with the observed pattern among them.

    Args:
        differences: One paired difference per task, (M,).
        rng: Source of the random signs.
        draws: Random sign patterns.

    Returns:
        p in (0, 1]; NaN when there is no task.

    Examples:
        >>> sign_flip_p([1.0, 1.0, 1.0], np.random.default_rng(0))
        0.25

    Source:
        Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010
        (arXiv:1603.05766) for counting the observed pattern.
    """
    column = _column(differences)
    if not column.size:
        return math.nan
    observed = abs(column.sum()) * (1 - 1e-12)
    if column.size <= 12:
        patterns = np.arange(2**column.size)[:, None] >> np.arange(column.size) & 1
        return float((abs((1 - 2 * patterns) @ column) >= observed).mean())
    count, step = 0, max(1, _CHUNK // column.size)
    for start in range(0, draws, step):
        size = (min(step, draws - start), column.size)
        count += int((abs((1 - 2 * rng.integers(2, size=size)) @ column) >= observed).sum())
    return (count + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted for their number, which controls the chance of any false positive.

    Args:
        p_values: One per comparison.

    Returns:
        Adjusted values in the same order, at most 1.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)

    Source:
        Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


@cache
def student_t(freedom: int, level: float = LEVEL) -> float:
    """The t with ``P(|T| <= t) = level`` for a whole number of degrees of freedom.

    Raises:
        ValueError: ``freedom`` is below 1 or ``level`` not inside (0, 1).

    Examples:
        >>> round(student_t(4), 3)
        2.776

    Source:
        Abramowitz and Stegun 1964, 26.7.3 and 26.7.4, inverted by bisection in the angle
        ``atan(t / sqrt(freedom))``, which is bounded where t is not.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(
            f"got {freedom} degrees of freedom at level {level}, expected >= 1, (0, 1)"
        )
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _central_probability(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _central_probability(angle: float, freedom: int) -> float:
    """``P(|T| <= sqrt(freedom) * tan(angle))``."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for i in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * i / (i + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"got {c} successes in {n} episodes")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is undefined for {n} episodes of a task: play at least k, k >= 1")


def _column(values: npt.ArrayLike) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"expected one value per task, (M,), got shape {column.shape}")
    return column


def _resampled_means(column: Floats, rng: np.random.Generator, draws: int) -> Floats:
    means = np.empty(draws)
    step = max(1, _CHUNK // column.size)
    for start in range(0, draws, step):
        size = (min(step, draws - start), column.size)
        means[start : start + step] = column[rng.integers(column.size, size=size)].mean(axis=1)
    return means


def _percentiles(value: float, means: Floats) -> Interval:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(value, float(low), float(high))
