"""The turns of a batch as an axis of their own, whatever rows they lie in.

Axis K: turns, ordered by episode and number. Growing and windowed contexts, and rows in any order,
give the same K axis, so statistics over turns never depend on how the tokens are laid out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from agentgym.batch import Batch


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
    owner, number = batch.owner[at], batch.turn[at]
    most = int(number.max()) + 1 if len(at) else 1
    key, turn, length = torch.unique(owner * most + number, return_inverse=True, return_counts=True)
    return Turns(at, turn, key // most, key % most, length)


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
