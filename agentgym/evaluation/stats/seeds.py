"""Means over training seeds and tasks with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agentgym.evaluation.stats.bootstrap import CHUNK, DRAWS, percentiles
from agentgym.evaluation.stats.intervals import Floats, Interval, as_column
from agentgym.evaluation.stats.student import student_p, student_t


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
    step = max(1, CHUNK // tasks)
    for start in range(0, draws, step):
        share = seed_share[start : start + step]
        task_share = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=len(share)) / tasks
        means[start : start + step] = ((share @ block) * task_share).sum(axis=1)
    return percentiles(float(block.mean()), means)


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
    column = as_column(values)
    if column.size < 2:
        raise ValueError(f"an interval over training seeds needs at least 2, got {column.size}")
    mean = float(column.mean())
    half = student_t(column.size - 1) * float(column.std(ddof=1)) / math.sqrt(column.size)
    return Interval(mean, mean - half, mean + half)


class SeedDifference(NamedTuple):
    """Difference of two arms that were trained with several seeds each."""

    interval: Interval
    p: float
    """Two-sided, of "the arms are equal"."""
    freedom: int
    """Degrees of freedom of both."""


def difference_over_seeds(before: npt.ArrayLike, after: npt.ArrayLike) -> SeedDifference:
    """Mean of ``after - before`` with an interval over training seeds and tasks.

    Both seeds and tasks are taken as samples: "would it help on other tasks like these, trained
    again". The variance adds that of the task means of the difference, which pairs the arms by
    task, and those of the seed means of each arm; what a seed does on single tasks is in both, and
    is subtracted once. The degrees of freedom are Satterthwaite's, rounded down.

    Args:
        before: One number per seed and task, (S1, M).
        after: The same tasks, of other seeds, (S2, M).

    Raises:
        ValueError: An arm has fewer than two seeds, there are fewer than two tasks, or the arms
            have different ones.

    Source:
        Cameron, Gelbach and Miller 2011 (JBES 29:2) for variances clustered in two ways;
        Satterthwaite 1946 for the degrees of freedom.
    """
    first, second = (np.asarray(each, dtype=np.float64) for each in (before, after))
    tasks = first.shape[-1]
    if first.ndim != 2 or second.ndim != 2 or tasks != second.shape[-1]:
        raise ValueError(
            f"expected one value per seed and task, (S, M), with the same tasks, "
            f"got shapes {first.shape} and {second.shape}"
        )
    if min(len(first), len(second), tasks) < 2:
        raise ValueError(
            f"an interval over seeds and tasks needs at least 2 of each, got {len(first)} and "
            f"{len(second)} seeds and {tasks} tasks"
        )
    change = second.mean(axis=0) - first.mean(axis=0)
    over_tasks = float(change.var(ddof=1)) / tasks
    over_seeds = [float(arm.mean(axis=1).var(ddof=1)) / len(arm) for arm in (first, second)]
    shared = sum(_residual(arm) for arm in (first, second))
    total = over_tasks + sum(over_seeds)
    variance = max(total - shared, over_tasks, sum(over_seeds))
    mean = float(change.mean())
    if variance == 0:
        return SeedDifference(Interval(mean, mean, mean), 1.0 if mean == 0 else 0.0, tasks - 1)
    parts = zip((over_tasks, *over_seeds), (tasks, len(first), len(second)), strict=True)
    freedom = max(1, int(variance**2 / sum(part**2 / (count - 1) for part, count in parts)))
    error = math.sqrt(variance)
    half = student_t(freedom) * error
    return SeedDifference(
        Interval(mean, mean - half, mean + half), student_p(mean / error, freedom), freedom
    )


def _residual(arm: Floats) -> float:
    """Variance of the mean of an arm, (S, M), by what single seeds do on single tasks."""
    seeds, tasks = arm.shape
    rest = arm - arm.mean(axis=1, keepdims=True) - arm.mean(axis=0) + arm.mean()
    return float((rest**2).sum() / ((seeds - 1) * (tasks - 1) * seeds * tasks))
