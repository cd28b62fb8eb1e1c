"""Where episodes fork and how many begin at the start: the pieces of ARPO and AEPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from agentgym.algorithm import RunInfo
from agentgym.rollout.branching import (
    BranchPoint,
    RootPlan,
    TreeStart,
    Uncertainty,
    mean_entropy,
    streak_per_path,
)
from agentgym.rollout.collect import EpisodePlayer
from agentgym.types import Completion, Task

VOCABULARY = 151_669
"""Tokens of the tokenizer that the released code normalises with."""


def summed_entropy(completion: Completion) -> float:
    """Sum over the first 20 tokens over the logarithm of the vocabulary: it may exceed 1."""
    return sum(completion.entropies[:20]) / math.log(VOCABULARY)


PAPERS_PROBABILITY = 0.5
"""Chance of a fork per decision in ARPO and AEPO."""
FEW_DECISIONS = 6
"""Turns of an episode up to which forks need not be spread; the papers' paths have 3 to 6."""


MEASURES: dict[str, Uncertainty] = {"mean": mean_entropy, "sum": summed_entropy}


def rise(decision: BranchPoint, measure: Uncertainty) -> float:
    """How much more uncertain the policy is here than at the start of the path."""
    return measure(decision.completion) - measure(decision.first)


def root_share(first: float, later: float, sensitivity: float) -> float:
    """Part of the budget for whole episodes: more, the more uncertain the first turn is."""
    return 1 / (1 + math.exp(-sensitivity * (first - later)))


def budget(n: int, first: float, later: float, sensitivity: float) -> int:
    """Whole episodes out of ``n``, rounded up as the code does; half and one at no difference."""
    return max(1, min(int(n * root_share(first, later, sensitivity)) + 1, n))


def monitored(n: int, sensitivity: float, measure: Uncertainty, *, keep: bool) -> RootPlan:
    """Let one episode, played first, decide how many begin at the start.

    Args:
        n: Budget of a task, in episodes.
        sensitivity: How strongly the difference of entropies moves the split.
        measure: Entropy of a turn.
        keep: The scout is one of the ``n``, and of the whole episodes, which are then half at no
            difference.
    """

    async def start(task: Task, play: EpisodePlayer) -> TreeStart:
        scout = await play.play_reserved(task, 0 if keep else n)
        found = [measure(turn.completion) for turn in scout.turns] or [0.0]
        later = sum(found[1:]) / (len(found) - 1) if found[1:] else found[0]
        roots = budget(n, found[0], later, sensitivity)
        return TreeStart((scout,), max(1, roots - 1) - 1) if keep else TreeStart((), roots)

    return start


def rising_probability(rise: float, base: float, slope: float) -> float:
    """ARPO's: ``base + slope * rise``, cut to [0, 1]."""
    return min(1.0, max(0.0, base + slope * rise))


def score(rise: float, streak: int, base: float, slope: float, penalty: float) -> float:
    """The paper's: ``(base + slope * rise) * (1 - penalty * streak)``, never negative."""
    return max(0.0, base + slope * rise) * max(0.0, 1 - penalty * streak)


def released_probability(rise: float, streak: int, weight: float, threshold: float) -> float:
    """That of the released code: a *larger* threshold means fewer forks."""
    left = max(0.0, 1 - 0.05 * streak)
    return 0.0 if left == 0 else min(1.0, max(0.0, 1 - threshold / left + weight * rise))


def count_tasks(streaks: Sequence[int], forks: Sequence[int]) -> list[int]:
    """The released code's count per task of a batch: nothing resets in a round without a fork."""
    return streak_per_path(streaks, forks) if any(forks) else list(streaks)


def spread_probability(forks: int, roots: int, run: RunInfo) -> float:
    """Chance of a fork per turn that spreads the forks of a task over its episodes.

    ``forks / (roots * turns)``, where an episode is expected to last three quarters of the turns
    that it may have. Where it has at most ``FEW_DECISIONS``, it is the papers' 0.5, with which
    forks in long episodes are used up within the first three turns and hardly anything is shared.
    """
    if run.max_turns <= FEW_DECISIONS:
        return PAPERS_PROBABILITY
    return min(PAPERS_PROBABILITY, forks / (max(1, roots) * 0.75 * run.max_turns))


class Spread(NamedTuple):
    """Score of a fork at no rise of entropy, and what a rise by 1 adds."""

    base: float
    slope: float


def spread(
    probability: float | None,
    weight: float,
    *,
    by_chance: bool,
    forks: int,
    roots: int,
    run: RunInfo,
) -> Spread:
    """The given probability and weight; unset, a spread one, and the weight in proportion.

    A score that is compared with a threshold is not a chance, and is the papers' where it is unset.
    """
    if probability is not None or not by_chance:
        return Spread(PAPERS_PROBABILITY if probability is None else probability, weight)
    found = spread_probability(forks, roots, run)
    return Spread(found, weight * found / PAPERS_PROBABILITY)


def by_task(streaks: Sequence[int], forks: Sequence[int]) -> list[int]:
    """All paths of a task share one streak, which ends in a round in which none of them forks.

    It is ``count_tasks`` in a batch in which some other task forks in every round: a task is
    collected by itself and does not see the others.
    """
    return streak_per_path([max(streaks, default=0)], [sum(forks)]) * len(streaks)
