"""What entropy buys: the law ``R = -a exp(H) + b`` between score and entropy, followed as it goes.

While nothing holds entropy up, the score of a run is a function of its entropy alone, and ``b - a``
is what it can reach when no entropy is left (Cui et al. 2025, arXiv:2505.22617). Differs from the
paper: the score is that of the episodes trained on, not of a validation set. Where entropy is held,
as many methods here do, the law does not apply and its residual shows it.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Law(NamedTuple):
    """A fit of ``R = -a exp(H) + b``, H in nats."""

    a: float
    b: float
    residual: float
    """Root of the mean squared error, in units of score."""

    @property
    def ceiling(self) -> float:
        """The score at entropy 0."""
        return self.b - self.a


class Course(NamedTuple):
    """The steps of a run so far, in sums; plain numbers, so that a checkpoint holds them."""

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

    def after(self, entropy: float, score: float) -> Course:
        """With one step more."""
        value, steps = math.exp(entropy), self.steps + 1
        dx, dy = value - self.x, score - self.y
        x, y = self.x + dx / steps, self.y + dy / steps
        return Course(
            steps,
            x,
            y,
            self.xx + dx * (value - x),
            self.xy + dx * (score - y),
            self.yy + dy * (score - y),
        )

    def fit(self) -> Law | None:
        """Least squares; None before there are three steps that differ in entropy."""
        if self.steps < 3 or self.xx < 1e-12:
            return None
        slope = self.xy / self.xx
        error = max(0.0, self.yy - slope * self.xy) / self.steps
        return Law(-slope, self.y - slope * self.x, math.sqrt(error))

    def metrics(self) -> dict[str, float]:
        """The fit as named numbers; none while there is none."""
        law = self.fit()
        if law is None:
            return {}
        return {
            "law/a": law.a,
            "law/b": law.b,
            "law/ceiling": law.ceiling,
            "law/residual": law.residual,
        }
