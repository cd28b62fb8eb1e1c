"""The turns of a batch as an axis of their own, whatever rows they lie in.

Axis K: turns, ordered by episode and number. Growing and windowed contexts, and rows in any order,
give the same K axis, so statistics over turns never depend on how the tokens are laid out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from agentgym.batch.batch import Batch


class Turns(NamedTuple):
    """Which token belongs to which turn; axis A: positions on the mask."""

    at: Int[Tensor, " A"]
    """Positions on the mask, in the order of the batch."""
    turn: Int[Tensor, " A"]
    """Index of the turn of each, on the K axis."""
    episode: Int[Tensor, " K"]
    number: Int[Tensor, " K"]
    """Turn number within the episode."""
    length: Int[Tensor, " K"]
    """Tokens of each turn."""

    def total(self, value: Shaped[Tensor, " P"]) -> Shaped[Tensor, " K"]:
        """Sum of a per-token value over each turn; what lies off the mask never counts."""
        zeros = value.new_zeros(len(self.length))
        return zeros.index_add(0, self.turn, value[self.at])

    def mean(self, value: Float[Tensor, " P"]) -> Float[Tensor, " K"]:
        """Mean of a per-token value over each turn."""
        return self.total(value) / self.length

    def first(self, value: Shaped[Tensor, " P"]) -> Shaped[Tensor, " K"]:
        """A value that is the same on all tokens of a turn, once per turn."""
        found = value.new_zeros(len(self.length))
        found[self.turn] = value[self.at]
        return found

    def spread(self, value: Shaped[Tensor, " K"], batch: Batch) -> Shaped[Tensor, " P"]:
        """A per-turn value on every token of the turn, 0 off the mask."""
        zeros = value.new_zeros(len(batch.mask))
        return zeros.index_put((self.at,), value[self.turn])

    def following(self, value: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
        """The value of the next turn of the same episode; 0 on an episode's last turn."""
        if not len(value):
            return value
        same = self.episode[1:] == self.episode[:-1]
        return torch.cat([value[1:] * same, value.new_zeros(1)])

    def per_episode(self, value: Float[Tensor, " K"], batch: Batch) -> Float[Tensor, " E"]:
        """Sum of a per-turn value over each episode."""
        return value.new_zeros(len(batch.group)).index_add(0, self.episode, value)


def turns_of(batch: Batch) -> Turns:
    """The turns that have a token on the mask."""
    at = batch.mask.nonzero().squeeze(-1)
    owner, number = batch.episode_of_token[at], batch.turn[at]
    most = int(number.max()) + 1 if len(at) else 1
    key, turn, length = torch.unique(owner * most + number, return_inverse=True, return_counts=True)
    return Turns(at, turn, key // most, key % most, length)


def quantile_by(
    value: Float[Tensor, " A"], key: Int[Tensor, " A"], level: float, size: int
) -> Float[Tensor, " K"]:
    """Quantile of the values under each key in [0, size), interpolated; 0 where there are none."""
    by_value = value.argsort(stable=True)
    ordered = value[by_value[key[by_value].argsort(stable=True)]]
    count = torch.bincount(key, minlength=size)
    place = level * (count - 1).clamp(min=0).to(value)
    start = count.cumsum(0) - count
    last = max(len(value) - 1, 0)
    below, above = ((start + x.long()).clamp(max=last) for x in (place.floor(), place.ceil()))
    if not len(value):
        return value.new_zeros(size)
    found = torch.lerp(ordered[below], ordered[above], place - place.floor())
    return torch.where(count > 0, found, torch.zeros_like(found))


def windows(value: Float[Tensor, " P"], turns: Turns, width: int) -> Float[Tensor, " A"]:
    """Mean over each token and the ``width - 1`` after it in the same turn; NaN without so many.

    In double precision inside.
    """
    total = torch.cat([value.new_zeros(1).double(), value.double().cumsum(0)])
    end = (turns.at + width).clamp(max=len(value))
    mean = (total[end] - total[turns.at]) / width
    owner = torch.full((len(value) + 1,), -1, device=value.device).index_put(
        (turns.at,), turns.turn
    )
    whole = (owner[end - 1] == turns.turn) & (turns.at + width <= len(value))
    return torch.where(whole, mean, mean.new_full((), torch.nan)).to(value)


def discounted_returns(
    turns: Turns, gain: Float[Tensor, " K"], discount: float
) -> Float[Tensor, " K"]:
    """Reward from each turn on: ``G_k = gain_k + discount * G_{k+1}`` within the episode."""
    found = gain.tolist()
    same = (turns.episode[1:] == turns.episode[:-1]).tolist()
    for k in range(len(found) - 2, -1, -1):
        if same[k]:
            found[k] += discount * found[k + 1]
    return torch.tensor(found, dtype=gain.dtype)
