"""Estimates for one task from n episodes, of which k count: pass@k, pass^k, best and worst of k."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def best_of_k(scores: Sequence[float], k: int) -> float:
    """Expected highest score of k episodes, drawn from those played without replacement.

    pass@k for graded scores: of scores 0 and 1 it is ``pass_at_k``.

    Args:
        scores: One per episode of the task, (n,).
        k: Episodes drawn, 1 to n.

    Raises:
        ValueError: k is not in 1..n.

    Examples:
        >>> best_of_k([0.0, 0.5, 1.0], 2)
        0.8333333333333334

    Source:
        Unbiased by the argument of Chen et al. 2021: ``comb(i - 1, k - 1)`` of the ``comb(n, k)``
        draws have the i-th lowest score as their highest.
    """
    n = len(scores)
    _check_counts(n, 0, k)
    ranked = enumerate(sorted(scores))
    return sum(math.comb(below, k - 1) * score for below, score in ranked) / math.comb(n, k)


def worst_of_k(scores: Sequence[float], k: int) -> float:
    """Expected lowest score of k episodes: pass^k for graded scores; see ``best_of_k``.

    Examples:
        >>> worst_of_k([0.0, 0.5, 1.0], 2)
        0.16666666666666666
    """
    return -best_of_k([-score for score in scores], k)


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"got {c} successes in {n} episodes")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is undefined for {n} episodes of a task: play at least k, k >= 1")
