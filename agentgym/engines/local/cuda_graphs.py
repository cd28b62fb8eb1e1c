"""The slotted decoder on a GPU, where starting a kernel takes longer than most kernels run.

A step in which rows have one new token each is one CUDA graph over all slots, idle ones too, and is
started with one call. Rows with more new tokens are laid out anew each time; rows of about as many
share one attention call, padded.

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

from agentgym.engines.local.slotted import Packing, RowRun, SlottedDecoder

_LEAST = 64
"""Fewest cached positions that a graph looks at; above, twice as many and so on."""


class _Chunk(NamedTuple):
    """Rows with several new tokens, of about the same number."""

    slots: Tensor
    """[C]"""
    packed: Tensor
    """[C, M] packed place of each new token; a row that has fewer repeats its last."""
    own: Tensor
    """[C, M] which of them are no repetition."""
    length: int
    """Cached positions that are looked at."""
    mask: Tensor
    """[C, 1, M * G, S], True where a token may look."""


class _Step(NamedTuple):
    """A graph, and where its question lies."""

    play: Callable[[], Tensor]
    """[slots, V] logits, overwritten by the next call."""
    asked: Tensor
    """[2, slots]: new tokens, and their positions; -1 in an idle slot."""


def capture(step: Callable[[], Tensor], memory: Any, device: torch.device) -> Callable[[], Tensor]:
    """The same step as one call; it answers in the same place each time."""
    graph = torch.cuda.CUDAGraph()
    # A stream is of one GPU, and what runs on another is not seen.
    with torch.cuda.device(device):
        step()  # Libraries set themselves up at their first call, which no graph may hold.
        aside = _aside(torch.cuda.current_device())
        aside.wait_stream(torch.cuda.current_stream())
        # Not `torch.cuda.graph`, which collects garbage for half a second.
        with torch.cuda.stream(aside):
            graph.capture_begin(pool=memory, capture_error_mode="thread_local")
            try:
                answer = step()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(aside)

    def play() -> Tensor:
        graph.replay()
        return answer

    return play


@cache
def _aside(gpu: int) -> Any:
    """A stream to make graphs on: libraries keep memory for every stream that they have seen."""
    return torch.cuda.Stream(gpu)  # type: ignore[no-untyped-call]


class GraphedDecoder(SlottedDecoder):
    """As ``SlottedDecoder``, up to rounding.

    A graph is made when rows first have its length, and again when the cache has grown. The last
    position of every slot is of no row: idle slots write there. While a graph is made nobody may
    wait for the whole GPU, as a compiler does that tries kernels: a trainer must not learn then.
    """

    def __init__(self, *args: Any, slots: int, context: int, **kwargs: Any) -> None:
        self._slots = slots
        self._steps: dict[int, _Step] = {}
        """By the number of cached positions that they look at."""
        super().__init__(*args, context=context + 1, **kwargs)

    def release(self) -> None:
        """Give the memory of cache and graphs back."""
        self._forget()
        super().release()
        torch.cuda.empty_cache()

    def _forget(self) -> None:
        self._steps.clear()
        self._memory = torch.cuda.graph_pool_handle()
        """Shared by all graphs: one runs at a time. It ends with the last of them."""

    def _reserve(self, slots: int, length: int) -> bool:
        grown = super()._reserve(self._slots, self._bucket(length) + 1)
        if grown:
            self._forget()
        return grown

    @torch.inference_mode()
    def extend(
        self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """Append tokens to rows; [R, V] logits after the last token of each."""
        # Those with one new token first.
        work = sorted(zip(rows, starts, tokens, range(len(rows)), strict=True), key=_many)
        single = sum(not _many(row) for row in work)
        row, start, new, order = (list(column) for column in zip(*work, strict=True))
        parts = []
        if single:
            parts.append(self._step(row[:single], start[:single], [t for (t,) in new[:single]]))
        if single < len(work):
            parts.append(super().extend(row[single:], start[single:], new[single:]))
        return torch.cat(parts)[self._tensor(np.argsort(order))]

    def _step(self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """[R, V] logits after one new token per row."""
        length = self._bucket(max(starts) + 1)
        self._reserve(self._slots, length)
        if length not in self._steps:
            self._steps[length] = self._record(length)
        step = self._steps[length]
        asked = np.tile([[0], [-1]], self._slots)
        asked[:, rows] = tokens, starts
        step.asked.copy_(torch.from_numpy(asked))
        return step.play()[self._tensor(np.array(rows))]

    def _bucket(self, length: int) -> int:
        return min(_power(length, _LEAST), self._context - 1)

    def _record(self, length: int) -> _Step:
        slots = self._slots
        asked = self._tensor(np.tile([[0], [-1]], slots))

        def forward() -> Tensor:
            tokens, positions = asked
            # Made here: of what a graph reads, it keeps alive what it makes itself.
            everyone, places = (torch.arange(n, device=self._device) for n in (slots, length))
            last = self._cache[0][0].shape[2] - 1
            at = positions.masked_fill(positions < 0, last)
            # An idle slot looks at its first entry: a row of nothing but -inf would be NaN.
            seen = places <= positions.clamp(min=0)[:, None]
            run = RowRun(slice(0, slots), slice(0, slots), None, length, seen[:, None, None])
            return self._forward(Packing(tokens, at, everyone, everyone, [run], []))

        return _Step(capture(forward, self._memory, self._device), asked)

    # ---- several new tokens ------------------------------------------------------------------

    def _chunks(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> Iterator[_Chunk]:
        sizes = [_power(int(n), 1) for n in count]
        order = sorted(range(len(sizes)), key=lambda i: sizes[i])
        for _, some in groupby(order, key=lambda i: sizes[i]):
            index = np.array(list(some))
            yield self._together(slot[index], start[index], count[index], stop[index])

    def _together(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> _Chunk:
        along = np.arange(count.max())
        within = np.minimum(along, count[:, None] - 1)
        length = int((start + count).max())
        sees = np.arange(length) <= (start[:, None] + within)[..., None]
        return _Chunk(
            slots=self._tensor(slot),
            packed=self._tensor((stop - count)[:, None] + within),
            own=self._tensor(along < count[:, None]),
            length=length,
            mask=self._tensor(sees[:, None].repeat(self._heads // self._kv, 2)),
        )

    def _attend_chunks(
        self, query: Tensor, mixed: Tensor, keys: Tensor, values: Tensor, chunks: Sequence[Any]
    ) -> None:
        for chunk in chunks:
            # The group axis joins the query axis: keys need no repeating.
            q = query[chunk.packed].transpose(1, 2).flatten(2, 3)
            k, v = (part[chunk.slots, :, : chunk.length] for part in (keys, values))
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=chunk.mask)
            o = o.view(*o.shape[:2], -1, *query.shape[2:]).transpose(1, 2)
            mixed[chunk.packed[chunk.own]] = o[chunk.own]


def _many(row: tuple[int, int, Sequence[int], int]) -> bool:
    return len(row[2]) > 1


def _power(count: int, least: int) -> int:
    """The next power of two."""
    return max(least, 1 << (count - 1).bit_length())
