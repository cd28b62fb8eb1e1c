"""Batch-invariant shapes: with them the result of a row does not depend on the other rows.

CPU libraries sum in a different order for few rows, the more so the longer the sums are, and split
long sums into blocks whose size depends on their length. So rows are padded to a multiple, and
attention reads a number of keys that gives the same sums as any larger number whose rest is
masked. Both are measured; ``tests/test_determinism.py`` verifies them on the machine it runs on.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

BLOCK = 512
"""Keys per block of PyTorch's attention on a CPU; each block is a separate product."""
_STEP = 16
_MANY = 128
"""Rows from which the order of sums is taken to be final."""


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


def padding_for(head_size: int, widths: tuple[int, ...] = ()) -> Padding:
    """Padding for float32 on this CPU, as measured.

    Args:
        head_size: Dimension of an attention head.
        widths: Lengths of the sums in the linear layers: their numbers of inputs.
    """
    threads = torch.get_num_threads()
    return Padding(_rows(widths, threads), 4, _keys(head_size, threads))


@cache
def _rows(widths: tuple[int, ...], threads: int) -> int:
    """The smallest multiple whose results are those of many rows, whatever the number of rows."""
    generator = torch.Generator().manual_seed(0)
    rows = {width: torch.randn(_MANY, width, generator=generator) for width in widths}
    weights = {width: torch.randn(256, width, generator=generator) for width in widths}

    def alike(multiple: int) -> bool:
        return all(
            F.linear(rows[width][:count], weights[width]).equal(
                F.linear(rows[width], weights[width])[:count]
            )
            for width in widths
            for count in range(multiple, _MANY, multiple)
        )

    return next(filter(alike, (8, 16, 32)), 64)


@cache
def _keys(head_size: int, threads: int) -> tuple[int, ...]:
    """Numbers of keys that give the same sums as a whole block of which the rest is masked."""
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

    return *filter(alike, range(_STEP, BLOCK, _STEP)), BLOCK


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``count``."""
    return -(-count // multiple) * multiple
