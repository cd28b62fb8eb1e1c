"""The layout of a model call: which tokens and rows stand where, and which calls attend.

Axes as in ``agentgym.engines.local.slotted``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agentgym.engines.local.batch_invariance import Padding, round_up
from agentgym.engines.local.decode_plan import Opening, openings, runs
from agentgym.engines.local.decoder import Prefix
from agentgym.engines.local.parallel import packing_order


class DecodeRun(NamedTuple):
    """Rows with one new token in adjacent slots: one attention call."""

    slots: slice
    packed: slice
    """Positions of their tokens in the packed order."""
    dense: Tensor | None
    """Index in ``slots`` of each row; None if the run has no idle slot."""
    positions: slice
    """Cached positions that are read."""
    mask: Tensor | None
    """[slots, 1, 1, S], 0 or -inf."""

    def answers(self, mixed: Tensor, group: int) -> Tensor:
        """What belongs to its rows: without idle slots, and without the padding of queries."""
        kept = mixed[:, :, :group]
        return kept if self.dense is None else kept[self.dense]


class SharedOpening(NamedTuple):
    """Rows with one new token and a common opening: one attention call for that part."""

    slot: int
    """The slot of one of them, from which the opening is read."""
    packed: Tensor
    """Places of their tokens in the packed order."""
    length: int


class Prefill(NamedTuple):
    """One row with several new tokens, for one attention call."""

    slot: int
    packed: slice
    length: int
    """Cached positions that are read, including the new ones."""
    mask: Tensor | None
    """[queries, S], 0 or -inf."""


class Packing(NamedTuple):
    """Layout of one model call; ``tokens`` and ``last`` are padded by repeating their end."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    """[N], for the tokens without padding."""
    last: Tensor
    """[R] packed index of each row's last token, in the caller's order."""
    decodes: list[DecodeRun]
    prefills: list[Any]
    """Rows with several new tokens, in the form that the decoder's ``_attend_prefills`` takes."""
    shared: Sequence[SharedOpening] = ()
    """Openings that ``decodes`` leave out."""


class Packer:
    """Lays out calls for one device, precision and G query heads per key/value head."""

    def __init__(
        self, padding: Padding, dtype: torch.dtype, device: torch.device, group: int
    ) -> None:
        self._padding, self._dtype, self._device, self._group = padding, dtype, device, group

    def pack(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        prefixes: Sequence[Prefix | None],
    ) -> Packing:
        """Lay out rows with one new token first, in slot order, then prefills.

        Args:
            rows: Slots.
            starts: How many cached tokens each row keeps.
            tokens: New token ids per row.
            prefixes: What rows share, one entry per row.
        """
        order = packing_order(rows, [len(new) for new in tokens])
        slot = np.array([rows[i] for i in order])
        start = np.array([starts[i] for i in order])
        count = np.array([len(tokens[i]) for i in order])
        stop = np.cumsum(count)
        within = np.arange(stop[-1]) - np.repeat(stop - count, count)
        last = np.empty(len(order), dtype=np.int64)
        last[order] = stop - 1
        flat = np.fromiter(chain.from_iterable(tokens[i] for i in order), np.int64, int(stop[-1]))
        single = int((count == 1).sum())
        common = openings([prefixes[i] for i in order[:single]])
        return Packing(
            tokens=self.tensor(self._pad_tokens(flat)),
            positions=self.tensor(self._pad_tokens(np.repeat(start, count) + within)),
            slots=self.tensor(np.repeat(slot, count)),
            last=self.tensor(self._pad_tokens(last)),
            decodes=list(self._decodes(slot[:single], start[:single] + 1, common)),
            prefills=list(self.prefills(*(x[single:] for x in (slot, start, count, stop)))),
            shared=[
                SharedOpening(int(slot[each.members[0]]), torch.tensor(each.members), each.length)
                for each in common
            ],
        )

    def _pad_tokens(self, values: np.ndarray) -> np.ndarray:
        """Pad with the last value to the batch-invariant multiple."""
        return np.pad(
            values, (0, round_up(len(values), self._padding.tokens) - len(values)), "edge"
        )

    def tensor(self, values: np.ndarray) -> Tensor:
        """Numbers on the device."""
        return torch.from_numpy(values).to(self._device)

    def _decodes(
        self, slot: np.ndarray, length: np.ndarray, common: Sequence[Opening]
    ) -> Iterator[DecodeRun]:
        first = np.zeros_like(slot)
        for each in common:
            first[each.members] = each.length
        for run in runs(slot.tolist(), first.tolist(), length.tolist()):
            base, count = int(slot[run.start]), run.stop - run.start
            slots = slice(base, int(slot[run.stop - 1]) + 1)
            own = slot[run] - base
            low, high = int(first[run].min()), self._padding.keys_for(int(length[run].max()))
            # An idle slot attends to one entry: a fully masked row would give NaN.
            seen = np.tile([[low], [low + 1]], slots.stop - base)
            seen[:, own] = first[run], length[run]
            mask = None
            if seen[0].max() > low or seen[1].min() < high:
                at = np.arange(low, high)
                hidden = (at < seen[0][:, None]) | (at >= seen[1][:, None])
                mask = self.tensor(np.where(hidden, np.float32(-np.inf), np.float32(0)))
                mask = mask.to(self._dtype)[:, None, None]
            dense = None if len(seen[0]) == count else self.tensor(own)
            yield DecodeRun(slots, run, dense, slice(low, high), mask)

    def prefills(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> Iterator[Any]:
        """The prefills, from slot, first position, number of new tokens and packed end of each."""
        for row in zip(slot, start, count, stop, strict=True):
            yield self._prefill(*map(int, row))

    def _prefill(self, slot: int, start: int, count: int, stop: int) -> Prefill:
        packed = slice(stop - count, stop)
        seen = self._padding.keys_for(start + count)
        if start == 0:
            return Prefill(slot, packed, seen, None)
        shape = (round_up(count, self._padding.queries), seen)
        mask = torch.full(shape, -torch.inf, dtype=self._dtype, device=self._device)
        return Prefill(slot, packed, seen, mask.triu_(start + 1))
