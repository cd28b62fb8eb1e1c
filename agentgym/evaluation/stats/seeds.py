"""Means over training seeds and tasks with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentgym.evaluation.stats.intervals import CHUNK, DRAWS, Interval, as_column, percentiles
from agentgym.evaluation.stats.student import student_t


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
