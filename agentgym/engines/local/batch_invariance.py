"""Batch-invariant shapes: with them the result of a row does not depend on the other rows.

CPU libraries sum in a different order for fewer than four rows per thread, and split long sums
into blocks whose size depends on their length. So rows are padded to a minimum number, and
attention reads a number of keys that gives the same sums as any larger number whose rest is
masked. ``tests/test_determinism.py`` verifies both on the machine that it runs on.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

BLOCK = 512
"""Keys per block of PyTorch's attention on a CPU; each block is a separate product."""
_STEP = 16


class Padding(NamedTuple):
    """Multiples to which shapes are padded; the padding's results are discarded."""

    tokens: int = 1
    """Multiple for the rows of a linear layer."""
    queries: int = 1
    """Multiple for queries."""
    keys: tuple[int, ...] = ()
    """Allowed numbers of keys in the last block; any number if empty."""

    def keys_for(self, length: int) -> int:
        """Number of keys to read for a context of ``length`` tokens."""
        if not self.keys:
            return length
        whole = (length - 1) // BLOCK * BLOCK
        return whole + next(count for count in self.keys if whole + count >= length)


NO_PADDING = Padding()
"""No padding: results are equal up to rounding."""
FAST_ON_CPU = Padding(queries=4)
"""As ``NO_PADDING``; PyTorch's attention on a CPU is a fifth faster for four queries than three."""


@cache
def padding_for(head_size: int) -> Padding:
    """Padding for float32 on this CPU; which numbers of keys are safe is measured.

    Args:
        head_size: Dimension of an attention head.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 1, count, head_size, generator=generator) for count in (32, BLOCK, BLOCK)
    )

    def attend(queries: int, length: int, keys: int) -> torch.Tensor:
        mask = torch.zeros(1, keys).masked_fill(torch.arange(keys) >= length, -torch.inf)
        return F.scaled_dot_product_attention(
            query[..., :queries, :], key[..., :keys, :], value[..., :keys, :], attn_mask=mask
        )[..., :4, :]

    def alike(keys: int) -> bool:
        whole = attend(4, keys, BLOCK)
        return all(attend(queries, keys, keys).equal(whole) for queries in (4, 32))

    return Padding(8, 4, (*filter(alike, range(_STEP, BLOCK, _STEP)), BLOCK))


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``count``."""
    return -(-count // multiple) * multiple
