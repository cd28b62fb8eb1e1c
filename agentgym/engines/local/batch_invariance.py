"""Shapes of matrix products in which a row's result never depends on the other rows, bit by bit.

Libraries for a CPU add up in another order for fewer than four rows per thread, and cut long sums
into pieces whose size depends on their length. So there are never so few rows, and attention looks
at a number of keys that gives the same sums as any larger number of which the rest is masked.
``tests/test_determinism.py`` tries both on the machine that it runs on.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

BLOCK = 512
"""Keys that PyTorch's attention on a CPU takes at a time; each block is a product of its own."""
_STEP = 16


class Grain(NamedTuple):
    """What shapes are filled up to; what fills them is thrown away."""

    tokens: int = 1
    """Rows of a linear layer come in multiples of it."""
    queries: int = 1
    """So do queries."""
    keys: tuple[int, ...] = ()
    """Numbers of keys in the last block; any number if empty."""

    def seen(self, length: int) -> int:
        """Keys to look at where the last of them is number ``length``."""
        if not self.keys:
            return length
        whole = (length - 1) // BLOCK * BLOCK
        return whole + next(count for count in self.keys if whole + count >= length)


NONE = Grain()
"""Nothing is filled up, and results are the same up to rounding."""


@cache
def grain(size: int) -> Grain:
    """For float32 on this machine's CPU; which numbers of keys will do is tried out.

    Args:
        size: Of an attention head.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 1, count, size, generator=generator) for count in (32, BLOCK, BLOCK)
    )

    def attend(queries: int, length: int, keys: int) -> torch.Tensor:
        mask = torch.zeros(1, keys).masked_fill(torch.arange(keys) >= length, -torch.inf)
        return F.scaled_dot_product_attention(
            query[..., :queries, :], key[..., :keys, :], value[..., :keys, :], attn_mask=mask
        )[..., :4, :]

    def alike(keys: int) -> bool:
        whole = attend(4, keys, BLOCK)
        return all(attend(queries, keys, keys).equal(whole) for queries in (4, 32))

    return Grain(8, 4, (*filter(alike, range(_STEP, BLOCK, _STEP)), BLOCK))


def up(count: int, grain: int) -> int:
    """The next multiple of ``grain``."""
    return -(-count // grain) * grain
