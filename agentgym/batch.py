"""Trajectories as tensors: rows laid end to end, so padding does not exist.

Axes: P positions (tokens of all rows, end to end), N rows, E episodes. A row is a run of turns
whose context only grew; an episode has one row or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agentgym.types import Stop, Trajectory


@dataclass(frozen=True)
class Batch:
    """Rows of tokens ready for a loss; ``mask`` marks those the policy chose and learns from."""

    tokens: Int[Tensor, " P"]
    mask: Bool[Tensor, " P"]
    row: Int[Tensor, " P"]
    """Index of the row, ascending from 0."""
    turn: Int[Tensor, " P"]
    """Turn number within the episode; -1 off the mask."""
    logprob_sampled: Float[Tensor, " P"]
    """Engine's, under the distribution sampled from, in nats; 0 off the mask."""
    logprob: Float[Tensor, " P"]
    """Trainer's, before the update, in nats; 0 off the mask."""
    entropy: Float[Tensor, " P"]
    """Trainer's, before the update, in nats; 0 off the mask."""
    advantage: Float[Tensor, " P"]
    """0 off the mask."""
    weight: Float[Tensor, " P"]
    """Share of the loss; sums to 1 over the batch, 0 off the mask."""
    episode: Int[Tensor, " N"]
    """Index into the per-episode columns."""
    group: Int[Tensor, " E"]
    """Episodes of one task share it."""
    reward: Float[Tensor, " E"]
    """Undiscounted return."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Columns private to one algorithm, each (P,), named ``paper/name``."""

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        """Tokens in each row."""
        return torch.bincount(self.row, minlength=len(self))

    def with_(self, **columns: Any) -> Batch:
        """A copy with some columns replaced; unknown names become private columns."""
        known = {name: value for name, value in columns.items() if name in _COLUMNS}
        private = {name: value for name, value in columns.items() if name not in _COLUMNS}
        return replace(self, **known, extra={**self.extra, **private})

    def rows(self, index: Int[Tensor, " M"]) -> Batch:
        """The given rows, in that order; columns of episodes stay whole so indices hold."""
        lengths = self.lengths
        starts = lengths.cumsum(0) - lengths
        taken = lengths[index]
        row = torch.repeat_interleave(torch.arange(len(index), device=index.device), taken)
        offset = torch.arange(len(row), device=index.device) - (taken.cumsum(0) - taken)[row]
        at = starts[index][row] + offset
        picked: dict[str, Any] = {name: getattr(self, name)[at] for name in _PER_POSITION}
        extra = {name: value[at] for name, value in self.extra.items()}
        return replace(
            self, **(picked | {"row": row, "episode": self.episode[index], "extra": extra})
        )

    def to(self, device: torch.device | str) -> Batch:
        """All columns on a device."""
        moved = {name: getattr(self, name).to(device) for name in _COLUMNS - {"extra"}}
        return replace(self, **moved, extra={k: v.to(device) for k, v in self.extra.items()})

    def __len__(self) -> int:
        """Number of rows, N."""
        return len(self.episode)


_COLUMNS = frozenset(f.name for f in fields(Batch))
_PER_POSITION = (
    "tokens",
    "mask",
    "turn",
    "logprob_sampled",
    "logprob",
    "entropy",
    "advantage",
    "weight",
)


def token_mean(mask: Bool[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Weights under which every chosen token counts the same."""
    return mask / mask.sum().clamp(min=1)


def episode_mean(batch: Batch, mask: Bool[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Weights under which every episode counts the same, and so do the tokens within it.

    Where failures are long and successes short, as in worlds with a turn limit, the token mean
    gives the failures most of the weight: the update is then mostly about making what was done
    unlikely, and entropy rises without end. Here the advantages of a group balance.
    """
    owner = batch.episode[batch.row]
    count = torch.zeros(len(batch.group), device=mask.device).index_add_(0, owner, mask.float())
    share = mask / count.clamp(min=1)[owner]
    return share / share.sum().clamp(min=1e-12)


def collate(groups: Sequence[Sequence[Trajectory]]) -> Batch:
    """Lay trajectories end to end; advantages start at zero, weights at the token mean.

    An episode that the world broke (``Stop.ABORTED``) says nothing about the policy: it is left
    out here, so it enters neither a group's statistics nor the loss.
    """
    tokens: list[int] = []
    logprob: list[float] = []
    row: list[int] = []
    turn: list[int] = []
    episode: list[int] = []
    group: list[int] = []
    reward: list[float] = []
    for number, trajectories in enumerate(groups):
        for trajectory in trajectories:
            if trajectory.stop is Stop.ABORTED:
                continue
            index = 0
            for turns in trajectory.rows():
                for item in turns:
                    n, c = len(item.prompt), item.completion
                    tokens += [*item.prompt, *c.tokens]
                    logprob += [0.0] * n + list(c.logprobs)
                    turn += [-1] * n + [index if item.learn else -1] * len(c.tokens)
                    row += [len(episode)] * (n + len(c.tokens))
                    index += 1
                episode.append(len(reward))
            group.append(number)
            reward.append(trajectory.reward)
    turns_ = torch.tensor(turn, dtype=torch.long)
    mask = turns_ >= 0
    sampled = torch.tensor(logprob) * mask
    zeros = torch.zeros(len(tokens))
    return Batch(
        tokens=torch.tensor(tokens, dtype=torch.long),
        mask=mask,
        row=torch.tensor(row, dtype=torch.long),
        turn=turns_,
        logprob_sampled=sampled,
        logprob=zeros,
        entropy=zeros,
        advantage=zeros,
        weight=token_mean(mask),
        episode=torch.tensor(episode, dtype=torch.long),
        group=torch.tensor(group, dtype=torch.long),
        reward=torch.tensor(reward),
    )
