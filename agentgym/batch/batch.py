"""Trajectories as tensors: rows laid end to end, so padding does not exist.

Axes: P positions (tokens of all rows, end to end), N rows, E episodes. A row is a run of turns
whose context only grew; an episode has one row or several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

VALUE = "critic/value"
"""Private column: the critic's value before each token, before the update, in units of reward."""
REFERENCE = "reference/logprob"
"""Private column: log-probability under the policy that training began with, in nats."""


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
    turn_reward: Float[Tensor, " P"]
    """Reward that the token's turn earned, the same on all its tokens; 0 off the mask."""
    observation_hash: Int[Tensor, " P"]
    """Fingerprint of what the environment showed before the token's turn; 0 off the mask."""
    parsed: Bool[Tensor, " P"]
    """The token's turn held an action; False off the mask."""
    shared: Bool[Tensor, " P"]
    """The token was taken over from the episode this one was forked from; False off the mask."""
    thought: Bool[Tensor, " P"]
    """The token is thought, before the action of its turn; False off the mask."""
    episode: Int[Tensor, " N"]
    """Index into the per-episode columns."""
    group: Int[Tensor, " E"]
    """Episodes of one task share it."""
    reward: Float[Tensor, " E"]
    """Undiscounted return, with whatever shaping credit has added."""
    truncated: Bool[Tensor, " E"]
    """A limit ended the episode, not the environment."""
    won: Bool[Tensor, " E"]
    """The environment called the task solved."""
    sample: Int[Tensor, " E"]
    """Which of the episodes of its task it is, from 0."""
    ending_hash: Int[Tensor, " E"]
    """Fingerprint of the last action and of the environment's answer to it."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Columns private to one algorithm, each (P,), named ``paper/name``."""

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        """Tokens in each row."""
        return torch.bincount(self.row, minlength=len(self))

    @property
    def episode_of_token(self) -> Int[Tensor, " P"]:
        """Episode of each position."""
        return self.episode[self.row]

    def column(self, name: str) -> Float[Tensor, " P"]:
        """A column of positions, public or private, by its name."""
        found: Tensor = getattr(self, name) if name in _PER_POSITION else self.extra[name]
        return found

    def with_(self, **columns: Any) -> Batch:
        """A copy with some columns replaced; unknown names become private columns."""
        known = {name: value for name, value in columns.items() if name in _COLUMNS}
        private = {name: value for name, value in columns.items() if name not in _COLUMNS}
        return replace(self, **known, extra={**self.extra, **private})

    def places(self, index: Int[Tensor, " M"]) -> Int[Tensor, " Q"]:
        """Positions of the given rows, one row after another."""
        lengths = self.lengths
        starts = lengths.cumsum(0) - lengths
        taken = lengths[index]
        shift = starts[index] - (taken.cumsum(0) - taken)
        steps = torch.arange(int(taken.sum()), device=index.device)
        return steps + torch.repeat_interleave(shift, taken)

    def rows(self, index: Int[Tensor, " M"]) -> Batch:
        """The given rows, in that order; columns of episodes stay whole so indices hold."""
        at = self.places(index)
        numbers = torch.arange(len(index), device=index.device)
        row = torch.repeat_interleave(numbers, self.lengths[index])
        picked: dict[str, Any] = {name: getattr(self, name)[at] for name in _PER_POSITION}
        extra = {name: value[at] for name, value in self.extra.items()}
        return replace(
            self, **(picked | {"row": row, "episode": self.episode[index], "extra": extra})
        )

    def only(self, chosen: Bool[Tensor, " E"]) -> Batch:
        """The chosen episodes with all their rows; the others leave the columns of episodes too."""
        part = self.rows(chosen[self.episode].nonzero().squeeze(-1))
        number = chosen.cumsum(0) - 1
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _PER_EPISODE}
        return replace(part, **columns, episode=number[part.episode])

    def to(self, device: torch.device | str) -> Batch:
        """All columns on a device."""
        moved = {name: getattr(self, name).to(device) for name in _COLUMNS - {"extra"}}
        return replace(self, **moved, extra={k: v.to(device) for k, v in self.extra.items()})

    def __len__(self) -> int:
        """Number of rows, N."""
        return len(self.episode)


_COLUMNS = frozenset(f.name for f in fields(Batch))
_PER_EPISODE = ("group", "reward", "truncated", "won", "sample", "ending_hash")
_PER_POSITION = (
    "tokens",
    "mask",
    "turn",
    "logprob_sampled",
    "logprob",
    "entropy",
    "advantage",
    "weight",
    "turn_reward",
    "observation_hash",
    "parsed",
    "shared",
    "thought",
)


def token_mean(mask: Bool[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Weights under which every chosen token counts the same."""
    return mask / mask.sum().clamp(min=1)


def episode_mean(batch: Batch, mask: Bool[Tensor, " P"]) -> Float[Tensor, " P"]:
    """Weights under which every episode counts the same, and so do the tokens within it.

    Where failures are long and successes short, as with a turn limit, the token mean
    gives the failures most of the weight: the update is then mostly about making what was done
    unlikely, and entropy rises without end. Here the advantages of a group balance.
    """
    owner = batch.episode[batch.row]
    count = torch.zeros(len(batch.group), device=mask.device).index_add_(0, owner, mask.float())
    share = mask / count.clamp(min=1)[owner]
    return share / share.sum().clamp(min=1e-12)


def concatenate(first: Batch, second: Batch) -> Batch:
    """The rows of both; a private column that only one has is 0 in the other's rows.

    Episodes and groups of the second are numbered after those of the first.
    """
    offsets = {
        "row": len(first),
        "episode": len(first.group),
        "group": int(first.group.max()) + 1 if len(first.group) else 0,
    }
    joined = {
        name: torch.cat([getattr(first, name), getattr(second, name) + offsets.get(name, 0)])
        if name in offsets
        else torch.cat([getattr(first, name), getattr(second, name)])
        for name in _COLUMNS - {"extra"}
    }
    extra = {}
    for name in dict.fromkeys([*first.extra, *second.extra]):
        kind = (first.extra if name in first.extra else second.extra)[name].dtype
        extra[name] = torch.cat(
            [
                batch.extra.get(name, torch.zeros(len(batch.tokens), dtype=kind))
                for batch in (first, second)
            ]
        )
    return Batch(**joined, extra=extra)


def pack(batch: Batch) -> dict[str, Tensor]:
    """The public columns as plain tensors, for a checkpoint."""
    return {name: getattr(batch, name) for name in sorted(_COLUMNS - {"extra"})}


def unpack(columns: Mapping[str, Tensor]) -> Batch:
    """The batch that ``pack`` took apart, without private columns."""
    return Batch(**dict(columns), extra={})
