"""How the processes of one training job, its ranks, divide an update; by default there is one.

All ranks hold the whole batch and take the same decisions. Each computes some of the micro-batches;
what depends on all of them is summed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.training.minibatches import microbatches


@runtime_checkable
class Ranks(Protocol):
    """What a learner asks of the processes that it is one of."""

    def microbatches(
        self, batch: Batch, tokens: int, *, shared: bool
    ) -> Iterator[Int[Tensor, " M"] | None]:
        """Micro-batches of this rank, as many on every rank; None is one that counts for nothing.

        Args:
            batch: The rows; each has a token on the mask.
            tokens: Most tokens of a micro-batch.
            shared: Tokens that rows share count once.
        """

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""


class Alone:
    """One process, which computes everything."""

    def microbatches(
        self, batch: Batch, tokens: int, *, shared: bool
    ) -> Iterator[Int[Tensor, " M"] | None]:
        """All micro-batches."""
        return iter(microbatches(batch, tokens, shared=shared))

    def total(self, values: Tensor) -> Tensor:
        """The values."""
        return values
