"""Student's t: quantiles and two-sided p-values."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist

LEVEL = 0.95
"""Nominal coverage of every interval in this package."""


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
        ``atan(t / sqrt(freedom))``, which is bounded where t is not. Above 1,000 degrees of freedom
        26.7.5, the expansion about the normal quantile, which is right to 9 digits there.
    """
    if freedom < 1 or not 0 < level < 1:
        raise ValueError(
            f"got {freedom} degrees of freedom at level {level}, expected >= 1, (0, 1)"
        )
    if freedom > 1000:
        return _expansion(NormalDist().inv_cdf((1 + level) / 2), freedom)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _central_probability(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _expansion(z: float, freedom: int) -> float:
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def student_p(t: float, freedom: int) -> float:
    """Two-sided p-value ``P(|T| >= |t|)`` for a whole number of degrees of freedom.

    Examples:
        >>> round(student_p(2.776, 4), 3)
        0.05
    """
    return 1 - _central_probability(math.atan(abs(t) / math.sqrt(freedom)), freedom)


def _central_probability(angle: float, freedom: int) -> float:
    """``P(|T| <= sqrt(freedom) * tan(angle))``."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for i in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * i / (i + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
