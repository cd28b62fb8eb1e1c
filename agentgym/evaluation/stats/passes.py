"""Estimates for one task from n episodes, of which k count: pass@k and pass^k."""

from __future__ import annotations

import math


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


def _check_counts(n: int, c: int, k: int) -> None:
    if not 0 <= c <= n:
        raise ValueError(f"got {c} successes in {n} episodes")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} is undefined for {n} episodes of a task: play at least k, k >= 1")
