"""Which rows are computed together: shares of an optimizer step, micro-batches that fit memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.prefix_tree import beginnings, split
from agentgym.losses.compose import Loss, weight_sum


def row_weight(batch: Batch, weight: Float[Tensor, " P"]) -> Float[Tensor, " N"]:
    """Share of the loss that each row has, from a column of weights."""
    return weight.new_zeros(len(batch)).index_add_(0, batch.row, weight)


def loss_scale(loss: Loss, batch: Batch) -> float:
    """Size of the first term of a loss beside its weighted mean; 1 unless it has a divisor."""
    first = next(loss.terms())
    divisor = first.divisor(batch, first.weight)
    return float(weight_sum(batch, first.weight) / divisor) if divisor > 0 else 1.0


def minibatches(
    batch: Batch, rows: Bool[Tensor, " N"], count: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " M"]]:
    """Disjoint shares of the episodes, in random order; an episode's rows stay together."""
    episodes = torch.unique(batch.episode[rows])
    order = episodes[torch.randperm(len(episodes), generator=generator)]
    for share in order.tensor_split(min(count, len(order))):
        yield (torch.isin(batch.episode, share) & rows).nonzero().squeeze(-1)


def microbatches(batch: Batch, tokens: int, *, shared: bool) -> Iterator[Int[Tensor, " M"]]:
    """Indices of rows in micro-batches of at most ``tokens`` tokens, or of one longer row.

    With ``shared``, rows with a common prefix are neighbours and the prefix counts once. Where a
    micro-batch ends between them, the next one computes the prefix again; its gradient is then a
    sum of two terms, so the total does not change. Without, rows keep their order.
    """
    rows = split(batch.tokens, batch.lengths)
    run: list[int] = []
    used = 0
    alone = ((n, 0) for n in range(len(rows)))
    for index, prefix in beginnings(rows) if shared else alone:
        new = len(rows[index]) - prefix
        if run and used + new > tokens:
            yield torch.tensor(run)
            run, used, new = [], 0, len(rows[index])
        run.append(index)
        used += new
    if run:
        yield torch.tensor(run)


def evenly_spaced(batch: Batch, tokens: int) -> Int[Tensor, " M"]:
    """Rows of about ``tokens`` tokens in all, evenly spaced; at least one."""
    rows = max(1, len(batch) * tokens // len(batch.tokens))
    return torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long()
