"""Batches written down by hand, in double precision: for exact tests of credit and losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch, token_mean


def batch_of(
    turns: Sequence[Sequence[int]],
    *,
    reward: Sequence[float] = (),
    group: Sequence[int] = (),
    turn_reward: Sequence[float] = (),
    observation_hash: Sequence[int] = (),
    won: Sequence[bool] = (),
    ending_hash: Sequence[int] = (),
) -> Batch:
    """Episodes given by the number of tokens written in each turn; one token is read before each.

    Args:
        turns: Per episode, the lengths of its turns, in tokens.
        reward: Per episode; 0 unless given.
        group: Task of each episode; the same for all unless given.
        turn_reward: Reward of each turn, all episodes' turns end to end; 0 unless given.
        observation_hash: Fingerprint of what each turn began with, likewise.
        won: Per episode; where the reward is positive unless given.
        ending_hash: Fingerprint of how each episode ended; the same for all unless given.
    """
    lengths = [length for episode in turns for length in episode]
    owner = [e for e, episode in enumerate(turns) for _ in episode]
    number = [k for episode in turns for k in range(len(episode))]
    size = torch.tensor(lengths) + 1
    place = torch.cat([torch.arange(int(n)) for n in size])
    mask = place > 0
    exact = torch.zeros(len(mask), dtype=torch.float64)

    def each(values: Sequence[float], default: float = 0.0) -> Tensor:
        """A per-turn value on the tokens written in the turn."""
        found = torch.tensor([*values] or [default] * len(lengths))
        return torch.where(mask, found.repeat_interleave(size), torch.zeros(1, dtype=found.dtype))

    episodes = len(turns)
    returns = torch.tensor([*reward] or [0.0] * episodes, dtype=torch.float64)
    groups = [*group] or [0] * episodes
    return Batch(
        tokens=torch.ones(len(mask), dtype=torch.long),
        mask=mask,
        row=torch.tensor(owner).repeat_interleave(size),
        turn=torch.where(mask, torch.tensor(number).repeat_interleave(size), -1),
        logprob_sampled=exact,
        logprob=exact,
        entropy=exact,
        advantage=exact,
        weight=token_mean(mask).double(),
        turn_reward=each(turn_reward).double(),
        observation_hash=each([int(s) for s in observation_hash], 0).long(),
        parsed=mask,
        shared=torch.zeros_like(mask),
        thought=torch.zeros_like(mask),
        episode=torch.arange(episodes),
        group=torch.tensor(groups),
        reward=returns,
        truncated=torch.zeros(episodes, dtype=torch.bool),
        won=torch.tensor([*won], dtype=torch.bool) if won else returns > 0,
        sample=torch.tensor([groups[:e].count(g) for e, g in enumerate(groups)]),
        ending_hash=torch.tensor([*ending_hash] or [0] * episodes),
    )


def written(batch: Batch, values: Sequence[float]) -> Float[Tensor, " P"]:
    """A column with the given values on the tokens that were written, in order, 0 elsewhere."""
    found = torch.zeros(len(batch.mask), dtype=torch.float64)
    found[batch.mask] = torch.tensor(values, dtype=torch.float64)
    return found
