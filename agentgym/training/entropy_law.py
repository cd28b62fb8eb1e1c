"""The law ``R = -a exp(H) + b`` between score R and entropy H, fitted during a run.

While nothing holds entropy up, the score of a run is a function of its entropy alone, and ``b - a``
is the score at entropy 0, the most that can be reached (Cui et al. 2025, arXiv:2505.22617).
Differs from the paper: the score is that of the training episodes, not of a validation set. Where
entropy is held up, as many methods here do, the law does not apply, and its residual shows it.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class EntropyLaw(NamedTuple):
    """A fit of ``R = -a exp(H) + b``, H in nats."""

    a: float
    b: float
    residual: float
    """Root of the mean squared error, in units of score."""

    @property
    def ceiling(self) -> float:
        """The score at entropy 0."""
        return self.b - self.a


class EntropyFit(NamedTuple):
    """Sums over the steps so far, for a least-squares fit; plain numbers for checkpoints."""

    steps: int = 0
    x: float = 0.0
    """Mean of ``exp(H)``."""
    y: float = 0.0
    """Mean score."""
    xx: float = 0.0
    """Sum of squared deviations of ``exp(H)``."""
    xy: float = 0.0
    """Sum of products of deviations."""
    yy: float = 0.0
    """Sum of squared deviations of the score."""

    def updated(self, entropy: float, score: float) -> EntropyFit:
        """The sums after one more step."""
        value, steps = math.exp(entropy), self.steps + 1
        dx, dy = value - self.x, score - self.y
        x, y = self.x + dx / steps, self.y + dy / steps
        return EntropyFit(
            steps,
            x,
            y,
            self.xx + dx * (value - x),
            self.xy + dx * (score - y),
            self.yy + dy * (score - y),
        )

    def fit(self) -> EntropyLaw | None:
        """Least squares; None before there are three steps that differ in entropy."""
        if self.steps < 3 or self.xx < 1e-12:
            return None
        slope = self.xy / self.xx
        error = max(0.0, self.yy - slope * self.xy) / self.steps
        return EntropyLaw(-slope, self.y - slope * self.x, math.sqrt(error))

    def metrics(self) -> dict[str, float]:
        """The fit as metrics; empty where there is none."""
        law = self.fit()
        if law is None:
            return {}
        return {
            "entropy_law/a": law.a,
            "entropy_law/b": law.b,
            "entropy_law/ceiling": law.ceiling,
            "entropy_law/residual": law.residual,
        }
