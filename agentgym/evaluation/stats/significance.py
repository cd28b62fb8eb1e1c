"""Whether differences may be chance: p-values over tasks, and over many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agentgym.evaluation.stats.bootstrap import CHUNK, DRAWS
from agentgym.evaluation.stats.intervals import as_column


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
    column = as_column(differences)
    if not column.size:
        return math.nan
    observed = abs(column.sum()) * (1 - 1e-12)
    if column.size <= 12:
        patterns = np.arange(2**column.size)[:, None] >> np.arange(column.size) & 1
        return float((abs((1 - 2 * patterns) @ column) >= observed).mean())
    count, step = 0, max(1, CHUNK // column.size)
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
