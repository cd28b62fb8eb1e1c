"""The share of continuations that win, from strata of those that begin alike.

A turn of a continuation is drawn, but its probability is known: that of its tokens. Continuations
that begin with the same turns are a stratum whose probability is the product of these, whatever
share of the drawn ones it holds, and only what follows remains uncertain (post-stratification,
Holt and Smith 1979). Where the environment answers the same turns differently, they are not
followed further.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from agentgym.types import Completion, Trajectory

Tokens = tuple[int, ...]
"""Of a completion."""

DEPTH = 4
"""Turns that a stratum may have in common; more add nothing."""
_MEMBERS = 4
"""Continuations that a stratum is expected to hold, at least."""
_PRIOR = 20
"""Continuations by which the spread inside strata is taken to be that of all."""


def probability(completion: Completion) -> float:
    """That the policy which sampled a completion samples it."""
    return min(1.0, math.exp(sum(completion.logprobs)))


class First(NamedTuple):
    """A turn at the beginning of a continuation."""

    tokens: Tokens
    probability: float
    """Of its tokens."""
    answer: str
    """Of the environment."""


class Continuation(NamedTuple):
    """How a continuation began, and how it ended."""

    turns: tuple[First, ...]
    """Its first turns, at most ``DEPTH``."""
    won: bool

    @classmethod
    def of(cls, played: Trajectory, after: int) -> Continuation:
        """From an episode, of which so many turns were recorded before."""
        turns = played.turns[after : after + DEPTH]
        firsts = (
            First(turn.completion.tokens, probability(turn.completion), turn.observation)
            for turn in turns
        )
        return cls(tuple(firsts), played.won)


class Share(NamedTuple):
    """The share of continuations that win."""

    mean: float = 0.5
    trials: float = 0.0
    """Independent continuations that would be as sure."""
    continuations: int = 0
    """Those it is from."""

    @property
    def spread(self) -> float:
        """Variance of one trial, with two won and two lost ones added (Agresti and Coull 1998).

        Without them, a few equal outcomes would pass for certainty.
        """
        mean = (self.mean * self.trials + 2) / (self.trials + 4)
        return mean * (1 - mean)

    @property
    def error(self) -> float:
        """Variance of the mean; that of a uniform guess without any continuation."""
        return self.spread / self.trials if self.trials else 1 / 12

    @property
    def per_trial(self) -> float:
        """How many continuations are as sure as one independent trial: 1 or less."""
        return self.continuations / self.trials if self.trials else 1.0


class _Stratum(NamedTuple):
    weight: float
    won: list[bool]

    @property
    def mean(self) -> float:
        return sum(self.won) / len(self.won)

    @property
    def squares(self) -> float:
        """Sum of the squared distances from the mean."""
        return len(self.won) * self.mean * (1 - self.mean)


def share_of(continuations: Sequence[Continuation], rest: float) -> Share:
    """The share of continuations that win, of all that take no recorded turn.

    Args:
        continuations: Drawn ones.
        rest: Probability that a continuation takes no recorded turn.
    """
    count = len(continuations)
    if not count:
        return Share()
    rest = max(rest, 1e-9)  # What was rounded away was drawn all the same.
    strata = _strata(continuations, 0, 1.0, rest, _MEMBERS * rest / count)
    weight = sum(each.weight for each in strata)
    mean = sum(each.weight * each.mean for each in strata) / weight
    plain = sum(each.won for each in continuations) / count
    spread = plain * (1 - plain)
    if not spread:
        return Share(mean, count, count)
    free = count - len(strata)
    inside = (sum(each.squares for each in strata) + _PRIOR * spread) / (free + _PRIOR)
    return Share(mean, count * max(1.0, spread / inside), count)


def _strata(
    members: Sequence[Continuation], depth: int, chance: float, room: float, least: float
) -> list[_Stratum]:
    """Split continuations with the same first turns by the next one, where enough take it.

    What is enough depends on probabilities alone: counts that chance made large would be biased.

    Args:
        members: With the same ``depth`` first turns.
        depth: See above.
        chance: Probability of these turns.
        room: What of it belongs to turns that are not recorded.
        least: Probability of a stratum that is expected to hold enough.
    """
    following: dict[Tokens, list[Continuation]] = {}
    for each in members:
        tokens = each.turns[depth].tokens if depth < len(each.turns) else ()
        following.setdefault(tokens, []).append(each)
    found: list[_Stratum] = []
    left: list[bool] = []
    for tokens, group in following.items():
        taken = chance * group[0].turns[depth].probability if tokens else 0.0
        if taken < least:
            left += [each.won for each in group]
            continue
        room -= taken
        if len({each.turns[depth].answer for each in group}) > 1:
            found.append(_Stratum(taken, [each.won for each in group]))
        else:
            found += _strata(group, depth + 1, taken, taken, least)
    return [*found, _Stratum(max(room, 1e-9), left)] if left else found
