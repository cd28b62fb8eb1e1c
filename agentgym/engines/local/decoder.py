"""What the scheduler asks of a model: a cache of rows that it can extend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """A model with one key/value cache per row; keeps no lengths, the scheduler does.

    Entries of a row at and beyond its ``start`` are never read and may be overwritten, so a row is
    rewound, recycled or emptied just by extending it from a smaller ``start``.
    """

    vocabulary: int
    """Number of token ids the model can read."""

    def extend(
        self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """Append tokens to rows and predict what follows.

        Args:
            rows: R distinct row numbers.
            starts: How many cached tokens each row keeps; they must have been cached before.
            tokens: New token ids per row, at least one each.

        Returns:
            [R, V] logits after the last token of each row.
        """

    def copy(self, source: int, target: int, length: int) -> None:
        """Give row ``target`` the first ``length`` cached tokens of row ``source``."""

    def release(self) -> None:
        """Give the memory of the cache back: no row holds anything."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Adopt a state dict of the same architecture; everything cached so far is void.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
        """
