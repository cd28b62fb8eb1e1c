"""The slotted decoder on a GPU, where launching a kernel takes longer than most kernels run.

A decoding step, in which every row has one new token, is one CUDA graph over all slots, including
idle ones, and is launched with one call. Prefills are laid out for every call; rows of similar
length share one attention call, padded.

Axes as in ``agentgym.engines.local.slotted``; C rows of a call, M new tokens of the longest of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agentgym.engines.local.decoder import Prefix
from agentgym.engines.local.packing import DecodeRun, Packer, Packing
from agentgym.engines.local.slotted import SlottedDecoder

_LEAST = 64
"""Fewest cached positions that a graph reads; the next sizes are its doublings."""


class _Prefill(NamedTuple):
    """Prefills of about the same length."""

    slots: Tensor
    """[C]"""
    packed: Tensor
    """[C, M] packed place of each new token; a row that has fewer repeats its last."""
    own: Tensor
    """[C, M] True where the entry is not padding."""
    length: int
    """Cached positions that are read."""
    mask: Tensor
    """[C, 1, M * G, S], True where a token attends."""


class _Step(NamedTuple):
    """A captured graph and its input buffer."""

    replay: Callable[[], Tensor]
    """[slots, V] logits, overwritten by the next call."""
    inputs: Tensor
    """[2, slots]: new tokens, and their positions; -1 in an idle slot."""


def capture(step: Callable[[], Tensor], memory: Any, device: torch.device) -> Callable[[], Tensor]:
    """Capture a step as a graph; every replay writes to the same output tensor."""
    graph = torch.cuda.CUDAGraph()
    # A stream belongs to one GPU; work on another device would not be captured.
    with torch.cuda.device(device):
        step()  # Libraries initialise at their first call, which must not be captured.
        aside = _aside(torch.cuda.current_device())
        aside.wait_stream(torch.cuda.current_stream())
        # Not `torch.cuda.graph`, which runs the garbage collector for half a second.
        with torch.cuda.stream(aside):
            graph.capture_begin(pool=memory, capture_error_mode="thread_local")
            try:
                answer = step()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(aside)

    def replay() -> Tensor:
        graph.replay()
        return answer

    return replay


@cache
def _aside(gpu: int) -> Any:
    """The capture stream of a GPU: libraries keep memory for every stream that they see."""
    return torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]


class _GroupingPacker(Packer):
    """Rows of similar length share one attention call, padded."""

    def prefills(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> Iterator[_Prefill]:
        """Prefills of about the same length, together."""
        sizes = [_power(int(n), 1) for n in count]
        order = sorted(range(len(sizes)), key=lambda i: sizes[i])
        for _, some in groupby(order, key=lambda i: sizes[i]):
            index = np.array(list(some))
            yield self._together(slot[index], start[index], count[index], stop[index])

    def _together(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> _Prefill:
        along = np.arange(count.max())
        within = np.minimum(along, count[:, None] - 1)
        length = int((start + count).max())
        visible = np.arange(length) <= (start[:, None] + within)[..., None]
        return _Prefill(
            slots=self.tensor(slot),
            packed=self.tensor((stop - count)[:, None] + within),
            own=self.tensor(along < count[:, None]),
            length=length,
            mask=self.tensor(visible[:, None].repeat(self._group, 2)),
        )


class GraphedDecoder(SlottedDecoder):
    """As ``SlottedDecoder``, up to rounding.

    A graph is captured when rows first reach its length, and again after the cache has grown. The
    last position of every slot belongs to no row: idle slots write there. During a capture no
    thread may synchronise the device, as a compiler does that tunes kernels: no trainer may run.
    """

    _packer_type = _GroupingPacker

    def __init__(self, *args: Any, slots: int, context: int, **kwargs: Any) -> None:
        self._slots = slots
        self._steps: dict[int, _Step] = {}
        """By the number of cached positions that they read."""
        super().__init__(*args, context=context + 1, **kwargs)

    def release(self) -> None:
        """Free the memory of cache and graphs."""
        self._forget()
        super().release()
        torch.cuda.empty_cache()

    def _forget(self) -> None:
        self._steps.clear()
        self._memory = torch.cuda.graph_pool_handle()
        """Shared by all graphs, of which one runs at a time; freed with the last of them."""

    def _reserve(self, slots: int, length: int) -> bool:
        grown = super()._reserve(self._slots, self._bucket(length) + 1)
        if grown:
            self._forget()
        return grown

    @torch.inference_mode()
    def extend(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        prefixes: Sequence[Prefix | None] = (),
    ) -> Tensor:
        """Append tokens to rows; [R, V] logits after the last token of each."""
        # Rows that decode first, then prefills.
        work = sorted(zip(rows, starts, tokens, range(len(rows)), strict=True), key=_many)
        single = sum(not _many(row) for row in work)
        row, start, new, order = (list(column) for column in zip(*work, strict=True))
        parts = []
        if single:
            parts.append(self._step(row[:single], start[:single], [t for (t,) in new[:single]]))
        if single < len(work):
            parts.append(super().extend(row[single:], start[single:], new[single:]))
        return torch.cat(parts)[self._packer.tensor(np.argsort(order))]

    def _step(self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """[R, V] logits after one new token per row."""
        length = self._bucket(max(starts) + 1)
        self._reserve(self._slots, length)
        if length not in self._steps:
            self._steps[length] = self._record(length)
        step = self._steps[length]
        asked = np.tile([[0], [-1]], self._slots)
        asked[:, rows] = tokens, starts
        step.inputs.copy_(torch.from_numpy(asked))
        return step.replay()[self._packer.tensor(np.array(rows))]

    def _bucket(self, length: int) -> int:
        return min(_power(length, _LEAST), self._context - 1)

    def _record(self, length: int) -> _Step:
        slots = self._slots
        asked = self._packer.tensor(np.tile([[0], [-1]], slots))

        def forward() -> Tensor:
            tokens, positions = asked
            # Allocated here: a graph keeps only its own allocations alive.
            slot_ids, places = (torch.arange(n, device=self._device) for n in (slots, length))
            last = self._cache[0][0].shape[2] - 1
            at = positions.masked_fill(positions < 0, last)
            # An idle slot attends to its first entry: a fully masked row would give NaN.
            seen = places <= positions.clamp(min=0)[:, None]
            run = DecodeRun(
                slice(0, slots), slice(0, slots), None, slice(0, length), seen[:, None, None]
            )
            return self._forward(Packing(tokens, at, slot_ids, slot_ids, [run], []))

        return _Step(capture(forward, self._memory, self._device), asked)

    def _attend_prefills(
        self, query: Tensor, mixed: Tensor, keys: Tensor, values: Tensor, prefills: Sequence[Any]
    ) -> None:
        for prefill in prefills:
            # The group axis joins the query axis: keys need no repeating.
            q = query[prefill.packed].transpose(1, 2).flatten(2, 3)
            k, v = (part[prefill.slots, :, : prefill.length] for part in (keys, values))
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=prefill.mask)
            o = o.view(*o.shape[:2], -1, *query.shape[2:]).transpose(1, 2)
            mixed[prefill.packed[prefill.own]] = o[prefill.own]


def _many(row: tuple[int, int, Sequence[int], int]) -> bool:
    return len(row[2]) > 1


def _power(count: int, least: int) -> int:
    """The next power of two."""
    return max(least, 1 << (count - 1).bit_length())
