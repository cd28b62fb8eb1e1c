"""From the advantages of a credited batch back to the tokens of its episodes, for the records.

Credit may add rows (a replay), drop some or change their order. A private column therefore carries
the position that a token had before credit through all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.types import Trajectory

POSITION = "record/position"
"""Private column: one more than the position before credit; 0 in rows that credit added."""

Advantages: TypeAlias = tuple[tuple[float, ...], ...]
"""Of one episode: per turn, one number per sampled token, 0 where it is not trained on."""


def with_positions(batch: Batch) -> Batch:
    """The batch with the column that ``take_advantages`` reads."""
    return batch.with_(**{POSITION: torch.arange(1, len(batch.tokens) + 1)})


def take_advantages(batch: Batch, size: int) -> tuple[Batch, Float[Tensor, " P"]]:
    """The batch without the column, and the advantages at the ``size`` positions before credit."""
    extra = {name: column for name, column in batch.extra.items() if name != POSITION}
    place = batch.extra[POSITION]
    known = (place > 0) & batch.mask
    advantage = torch.zeros(size)
    advantage[place[known] - 1] = batch.advantage[known].float()
    return replace(batch, extra=extra), advantage


def by_turn(
    groups: Sequence[Sequence[Trajectory]], advantage: Float[Tensor, " P"]
) -> list[list[Advantages]]:
    """The advantages of each episode, in the layout of ``collate``; none for an unscored one."""
    numbers = iter(advantage.tolist())
    return [[_turns(episode, numbers) for episode in group] for group in groups]


def _turns(episode: Trajectory, numbers: Iterator[float]) -> Advantages:
    found = []
    for turn in episode.turns if episode.stop.scored else ():
        for _ in turn.prompt:
            next(numbers)
        found.append(tuple(next(numbers) for _ in turn.completion.tokens))
    return tuple(found)
