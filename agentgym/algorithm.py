"""An algorithm is three choices: how to collect, whom to credit, what to minimise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from agentgym.batch import Batch
from agentgym.credit import Transform, check_columns
from agentgym.losses import Loss
from agentgym.types import Task, Trajectory

Play = Callable[[Task, int], Awaitable[Trajectory]]
"""Plays one episode of a task; the number tells the episodes of one task apart."""

Collect = Callable[[Task, Play], Awaitable[list[Trajectory]]]
"""Turns one task into the group of episodes that will be compared with one another."""


def every_row(batch: Batch) -> Bool[Tensor, " N"]:
    """All rows of a batch."""
    return torch.ones(len(batch), dtype=torch.bool, device=batch.episode.device)


@dataclass(frozen=True, kw_only=True)
class Update:
    """A loss, the rows it is taken over, and how many optimiser steps it is worth."""

    loss: Loss
    rows: Callable[[Batch], Bool[Tensor, " N"]] = every_row
    """Rows that take part; an update without rows is skipped."""
    minibatches: int = 1
    """Optimiser steps per pass; each takes a random, disjoint share of the episodes."""
    epochs: int = 1
    """Passes over the batch."""
    name: str = "update"
    """Prefix of its metrics."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What a paper contributes, in the three places a contribution can live.

    Raises:
        CompositionError: A piece reads a column that none before it writes.
    """

    collect: Collect
    credit: Transform
    updates: tuple[Update, ...]
    """Each in its turn; most algorithms have one."""

    def __post_init__(self) -> None:
        """Fail when the pieces do not fit, before any accelerator is touched."""
        for update in self.updates:
            check_columns(self.credit, update.loss.reads)


def independent(n: int) -> Collect:
    """``n`` episodes of one task, played side by side from the same start."""

    async def collect(task: Task, play: Play) -> list[Trajectory]:
        return list(await asyncio.gather(*(play(task, sample) for sample in range(n))))

    return collect
