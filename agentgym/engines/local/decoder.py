"""What the scheduler needs from a model: a KV cache whose rows can be extended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from agentgym.engines.weight_stream import WeightStream


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """An opening that several rows have in common; each object is one opening."""

    length: int
    """In tokens."""


class Decoder(Protocol):
    """A model with one KV cache per row; the scheduler keeps the lengths.

    Entries of a row at and beyond its ``start`` are never read and may be overwritten, so extending
    a row from a smaller ``start`` rewinds, recycles or empties it.
    """

    vocabulary: int
    """Number of token ids the model can read."""

    def extend(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        prefixes: Sequence[Prefix | None] = (),
    ) -> Tensor:
        """Append tokens to rows and compute the logits of the next token.

        Args:
            rows: R distinct row numbers.
            starts: How many cached tokens each row keeps; they must have been cached before.
            tokens: New token ids per row, at least one each.
            prefixes: What each row shares with others, as a hint; empty if nothing is known.
                Rows with the same object have the same first ``length`` tokens.

        Returns:
            [R, V] logits after the last token of each row.
        """

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` cached tokens of row ``source`` to row ``target``."""

    def release(self) -> None:
        """Free the memory of the cache; all rows are empty afterwards."""

    def load(self, weights: WeightStream) -> None:
        """Load weights of the same architecture; the cache becomes invalid.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
        """
