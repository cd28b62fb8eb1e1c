"""How well the credit of a method ranks turns, measured by turn values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentgym.batch.batch import Batch
from agentgym.evaluation.stats.intervals import Floats
from agentgym.probe.files import ValuedEpisode


class Agreement(NamedTuple):
    """Rank correlations of a method's credit with the advantages of turns."""

    pooled: float
    """Over the turns of all episodes: does it find the turns that matter, in whatever episode."""
    within: float
    """Mean over episodes of the correlation over their turns: does it find the turns that matter
    within an episode. NaN for credit that is the same for all turns of an episode."""
    episodes: int
    """Episodes that ``within`` averages over."""


def turn_credit(batch: Batch, turns: Sequence[int]) -> list[Floats]:
    """The mean advantage of the tokens of each turn.

    Args:
        batch: With advantages, as credit leaves it; one episode for each entry of ``turns``.
        turns: Turns of each episode; NaN stands for a turn without a token that is learned from.
    """
    at = batch.mask
    episode = batch.episode_of_token[at].cpu().numpy()
    turn = batch.turn[at].cpu().numpy()
    advantage = batch.advantage[at].double().cpu().numpy()
    found = []
    for number, count in enumerate(turns):
        mine = episode == number
        total = np.bincount(turn[mine], weights=advantage[mine], minlength=count)
        tokens = np.bincount(turn[mine], minlength=count)
        with np.errstate(invalid="ignore"):
            found.append(total / np.where(tokens > 0, tokens, math.nan))
    return found


def agreement(credit: Sequence[Floats], truth: Sequence[ValuedEpisode]) -> Agreement:
    """Compare credit with the change of the value by each turn, episode by episode."""
    pairs = [
        (given, np.array(episode.advantages)) for given, episode in zip(credit, truth, strict=True)
    ]
    within = [spearman(*pair) for pair in pairs if len(pair[0]) > 2]
    known = [value for value in within if not math.isnan(value)]
    pooled = spearman(*(np.concatenate(column) for column in zip(*pairs, strict=True)))
    return Agreement(pooled, float(np.mean(known)) if known else math.nan, len(known))


def spearman(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side is constant.

    Pairs with a NaN are left out.

    Examples:
        >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 9.0]))
        1.0
    """
    known = np.isfinite(first) & np.isfinite(second)
    one, other = _ranks(first[known]), _ranks(second[known])
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return round(float(np.corrcoef(one, other)[0, 1]), 12)


def _ranks(values: Floats) -> Floats:
    """Ranks from 0; equal values share the mean of their ranks."""
    # Sums of floats differ in the last digits where credit is meant to be equal.
    rounded = np.round(values, 9)
    _, place, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts + 1) / 2)[place]
    return ranks
