"""How far a scorer agrees with the environment's own score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agentgym.evaluation.records import EpisodeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over the episodes that both have scored; NaN where a measure is undefined."""

    episodes: int
    accuracy: float
    """Share on which both agree about success."""
    kappa: float
    """Cohen's kappa of success: 0 is chance, 1 is perfect."""
    correlation: float
    """Pearson's, of the scores."""
    rank_correlation: float
    """Spearman's, of the scores; ties have their mean rank."""

    def __str__(self) -> str:
        """One line."""
        return (
            f"agreement with the environment on {self.episodes} episodes: success "
            f"{_percent(self.accuracy)}, kappa {_short(self.kappa)}, correlation of scores "
            f"{_short(self.correlation)} (ranks {_short(self.rank_correlation)})"
        )


def agreement(records: Sequence[EpisodeRecord]) -> Agreement:
    """Of rescored episodes whose environment had a score.

    Examples:
        >>> agreement([]).episodes
        0

    Source:
        Cohen 1960, A coefficient of agreement for nominal scales.
    """
    pairs = [
        (each.rescoring.world_won, each.won, each.rescoring.world_score, each.score)
        for each in records
        if each.rescoring is not None and not math.isnan(each.rescoring.world_score)
    ]
    if not pairs:
        return Agreement(episodes=0, **dict.fromkeys(_MEASURES, math.nan))
    world_won, won, world_score, score = np.asarray(pairs, dtype=np.float64).T
    return Agreement(
        episodes=len(pairs),
        accuracy=float((world_won == won).mean()),
        kappa=_kappa(world_won, won),
        correlation=_pearson(world_score, score),
        rank_correlation=_pearson(_ranks(world_score), _ranks(score)),
    )


_MEASURES = ("accuracy", "kappa", "correlation", "rank_correlation")


def _kappa(one: np.ndarray, other: np.ndarray) -> float:
    same = float((one == other).mean())
    share, other_share = float(one.mean()), float(other.mean())
    chance = share * other_share + (1 - share) * (1 - other_share)
    return (same - chance) / (1 - chance) if chance < 1 else math.nan


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    first, second = one - one.mean(), other - other.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = count.cumsum()
    mean_rank: np.ndarray = (ends - (count - 1) / 2)[place]
    return mean_rank


def _short(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{100 * value:.1f} %"
