"""Which rows of a decoding step share a call of attention.

Attention over a cache is bound by reading it. Rows in adjacent slots are read in one call, in which
shorter rows are padded to the longest. An opening that several rows have in common is read once
for all of them, and what follows it for each (as in the cascade attention of FlashInfer and
vLLM); the two parts are joined by the logarithms of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agentgym.engines.local.decoder import Prefix

_CALL = 1000
"""Cached positions, of one row, that are read in the time that a further call costs."""


class Opening(NamedTuple):
    """Rows whose first cached positions are the same."""

    length: int
    members: list[int]
    """Places of the rows in the step; two or more."""


def openings(prefixes: Sequence[Prefix | None]) -> list[Opening]:
    """The common openings that are worth a call of their own.

    Args:
        prefixes: One per row.
    """
    members: dict[Prefix, list[int]] = {}
    for row, prefix in enumerate(prefixes):
        if prefix is not None:
            members.setdefault(prefix, []).append(row)
    found = [Opening(prefix.length, rows) for prefix, rows in members.items()]
    return [each for each in found if (len(each.members) - 1) * each.length > _CALL]


def runs(slots: Sequence[int], lows: Sequence[int], highs: Sequence[int]) -> list[slice]:
    """Split rows into runs, each of which one call reads.

    A call reads a rectangle: all slots from its first row to its last, idle ones too, from the
    lowest position that one of them needs to the highest. A row joins the run before it where
    that reads less in excess than a call of its own costs.

    Args:
        slots: Of the rows, ascending.
        lows: First position that each row reads.
        highs: Position after the last.

    Examples:
        >>> runs([0, 1, 9], [0, 0, 0], [900, 880, 900])
        [slice(0, 2, None), slice(2, 3, None)]
    """
    found: list[slice] = []
    start = low = high = area = 0
    for row, (slot, first, end) in enumerate(zip(slots, lows, highs, strict=True)):
        own = end - first
        joined_low, joined_high = min(low, first), max(high, end)
        joined = (slot - slots[start] + 1) * (joined_high - joined_low)
        if row and joined - area - own <= _CALL:
            low, high, area = joined_low, joined_high, joined
            continue
        if row:
            found.append(slice(start, row))
        start, low, high, area = row, first, end, own
    return [*found, slice(start, len(slots))] if slots else []
