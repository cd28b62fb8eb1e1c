"""Llama, Qwen2 and Qwen3 over a preallocated cache of ragged rows.

Linear layers run on the packed new tokens of all rows, so no row is padded. Only attention sees
rows: those with one new token run together over neighbouring slots of the cache, those with more
run one by one. On a CPU, a call with much to read is cut into pieces, one core for each.

On a CPU in float32 no number depends on what shares the call or on what was cached before, not in
its last bit, unless this is not asked for: see ``agentgym.engines.local.batch_invariance``.

Axes: N packed new tokens, R rows, H hidden, K key/value heads, G query heads per key/value head,
D head size, S cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agentgym.engines.local import batch_invariance
from agentgym.engines.local.batch_invariance import up
from agentgym.engines.local.fused_weights import FusedWeights, head_size
from agentgym.engines.local.parallel import order_of, pieces_of, side_by_side

_GAP = 2
"""Idle slots that may lie inside a run: reading them costs less than one more attention call."""


class RowRun(NamedTuple):
    """Rows with one new token in neighbouring slots: one attention call."""

    slots: slice
    packed: slice
    """Their tokens in the packed order."""
    dense: Tensor | None
    """Where in ``slots`` each row is; None when the run has no idle slot."""
    length: int
    """Cached positions that are looked at."""
    mask: Tensor | None
    """[slots, 1, 1, S], 0 or -inf."""


class _Chunk(NamedTuple):
    """One row with several new tokens."""

    slot: int
    packed: slice
    length: int
    """Cached positions that are looked at, the new ones among them."""
    mask: Tensor | None
    """[queries, S], 0 or -inf."""


class Packing(NamedTuple):
    """One call of the model, laid out; tokens and last are filled up by repeating their end."""

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    """[N], as many as there are tokens to keep."""
    last: Tensor
    """[R] packed place of each row's last token, in the caller's order."""
    runs: list[RowRun]
    chunks: list[Any]
    """Rows with several new tokens, as ``_attend_chunks`` wants them."""


class SlottedDecoder:
    """Weights and caches of its own; the cache grows with the longest row it has held."""

    def __init__(
        self,
        config: Any,
        weights: Mapping[str, Tensor],
        *,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
        bitwise: bool = True,
    ) -> None:
        self.vocabulary = int(config.vocab_size)
        self._dtype, self._device = dtype, device
        if device.type == "cuda":
            # cuDNN plans anew for every shape, and no two calls are of one.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._context = context
        self._weights = FusedWeights(config, weights, dtype=dtype, device=device)
        self._heads: int = config.num_attention_heads
        self._kv: int = config.num_key_value_heads
        self._size = head_size(config)
        bitwise = bitwise and device.type == "cpu"
        self._grain = batch_invariance.grain(self._size) if bitwise else batch_invariance.NONE
        self._eps: float = config.rms_norm_eps
        self._cos, self._sin = self._rotary(config.rope_parameters["rope_theta"])
        self._cache: list[tuple[Tensor, Tensor]] = []
        """Keys and values per layer, [slots, K, S, D]."""
        self.release()

    def _empty(self, slots: int, length: int) -> Tensor:
        # Zeros: attention multiplies masked values by 0, and 0 * NaN would not be 0.
        shape = (slots, self._kv, length, self._size)
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def _rotary(self, theta: float) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines, [S, 1, D]; ``x*cos + roll(x, D/2)*sin`` rotates."""
        half = torch.arange(0, self._size, 2, dtype=torch.float32) / self._size
        angle = torch.arange(self._context, dtype=torch.float32)[:, None] / theta**half
        cos, sin = angle.cos(), angle.sin()
        parts = torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]
        return parts[0].to(self._device, self._dtype), parts[1].to(self._device, self._dtype)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy a Hugging Face state dict."""
        self._weights.load(weights)
        # Broken weights may have left NaN behind, which would spread through masked positions.
        with torch.inference_mode():
            for pair in self._cache:
                for part in pair:
                    part.zero_()

    # ---- cache -------------------------------------------------------------------------------

    def release(self) -> None:
        """Give the memory of the cache back."""
        self._cache = [(self._empty(0, 0), self._empty(0, 0)) for _ in self._weights.layers]

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy cached keys and values between slots."""
        self._reserve(target + 1, self._grain.seen(length))
        for pair in self._cache:
            for part in pair:
                part[target, :, :length] = part[source, :, :length]

    def _reserve(self, slots: int, length: int) -> bool:
        """Grow the cache where it must, by half at least: many small steps cost few copies."""
        held, _, room, _ = self._cache[0][0].shape
        if slots <= held and length <= room:
            return False
        slots = max(slots, held if slots <= held else held * 3 // 2)
        if length > room:
            length = min(self._grain.seen(self._context), up(max(length, room * 3 // 2), 64))
        length = max(length, room)
        for i, pair in enumerate(self._cache):
            grown = []
            for part in pair:
                new = self._empty(slots, length)
                new[:held, :, :room] = part
                grown.append(new)
            self._cache[i] = (grown[0], grown[1])
        return True

    # ---- one call ----------------------------------------------------------------------------

    @torch.inference_mode()
    def extend(
        self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """Append tokens to rows; [R, V] logits after the last token of each."""
        ends = [start + len(new) for start, new in zip(starts, tokens, strict=True)]
        self._reserve(max(rows) + 1, self._grain.seen(max(ends)))
        cores = torch.get_num_threads() if self._device.type == "cpu" else 1
        pieces = pieces_of(rows, [len(new) for new in tokens], cores)
        if not pieces:
            return self._extend(rows, starts, tokens)

        def compute(piece: np.ndarray) -> Tensor:
            return self._extend(
                [rows[i] for i in piece], [starts[i] for i in piece], [tokens[i] for i in piece]
            )

        logits = torch.cat(side_by_side(compute, pieces, cores))
        return logits[self._tensor(np.argsort(np.concatenate(pieces)))]

    @torch.inference_mode()
    def _extend(
        self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Tensor:
        """The same by whoever calls, where the cache has room."""
        return self._forward(self._pack(rows, starts, tokens))[: len(rows)]

    def _forward(self, pack: Packing) -> Tensor:
        """[R, V] logits after the last tokens."""
        kept = len(pack.slots)
        x = F.embedding(pack.tokens, self._weights.embedding)
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]
        rotated = self._heads + self._kv
        for layer, (keys, values) in zip(self._weights.layers, self._cache, strict=True):
            h = F.rms_norm(x, x.shape[-1:], layer.norm_attention, self._eps)
            qkv = F.linear(h, layer.qkv, layer.qkv_bias).view(len(x), -1, self._size)
            qk = qkv[:, :rotated]
            if layer.qk_norm is not None:
                qk = F.rms_norm(qk, (self._size,), None, self._eps) * layer.qk_norm
            qk = torch.addcmul(qk * cos, qk.roll(self._size // 2, -1), sin)
            places = pack.slots, slice(None), pack.positions[:kept]
            keys[places] = qk[:kept, self._heads :]
            values[places] = qkv[:kept, rotated:]
            mixed = self._attend(qk[:, : self._heads], keys, values, pack)
            x = x + F.linear(mixed, layer.out, layer.out_bias)
            h = F.rms_norm(x, x.shape[-1:], layer.norm_mlp, self._eps)
            gate, up = F.linear(h, layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        x = F.rms_norm(x[pack.last], x.shape[-1:], self._weights.norm, self._eps)
        return F.linear(x, self._weights.head)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, pack: Packing) -> Tensor:
        """[N, heads * D]: each token over its own row up to its own position."""
        out = torch.zeros_like(query, memory_format=torch.contiguous_format)
        query = query.view(-1, self._kv, self._heads // self._kv, self._size)
        mixed = out.view_as(query)
        for run in pack.runs:
            # The group axis takes the place of the query axis: keys need no repeating.
            q = query[run.packed]
            if run.dense is not None:
                spread = q.new_zeros((run.slots.stop - run.slots.start, *q.shape[1:]))
                q = spread.index_copy_(0, run.dense, q)
            k, v = keys[run.slots, :, : run.length], values[run.slots, :, : run.length]
            o = F.scaled_dot_product_attention(self._filled(q), k, v, attn_mask=run.mask)
            o = o[:, :, : q.shape[2]]
            mixed[run.packed] = o if run.dense is None else o[run.dense]
        self._attend_chunks(query, mixed, keys, values, pack.chunks)
        return out.view(len(out), -1)

    def _attend_chunks(
        self, query: Tensor, mixed: Tensor, keys: Tensor, values: Tensor, chunks: Sequence[Any]
    ) -> None:
        """Rows with several new tokens; both [N, K, G, D]."""
        for chunk in chunks:
            # The group axis takes the place of the batch axis, over which keys are expanded.
            q = query[chunk.packed].permute(2, 1, 0, 3)
            k = keys[chunk.slot, :, : chunk.length].expand(len(q), -1, -1, -1)
            v = values[chunk.slot, :, : chunk.length].expand(len(q), -1, -1, -1)
            causal = chunk.mask is None
            o = F.scaled_dot_product_attention(
                self._filled(q), k, v, attn_mask=chunk.mask, is_causal=causal
            )
            mixed[chunk.packed] = o[:, :, : q.shape[2]].permute(2, 1, 0, 3)

    def _filled(self, query: Tensor) -> Tensor:
        """Queries of zeros after the others, up to the grain."""
        count = query.shape[2]
        return F.pad(query, (0, 0, 0, up(count, self._grain.queries) - count))

    # ---- layout ------------------------------------------------------------------------------

    def _pack(
        self, rows: Sequence[int], starts: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Packing:
        """Rows with one new token first, in slot order; then the others."""
        order = order_of(rows, [len(new) for new in tokens])
        slot = np.array([rows[i] for i in order])
        start = np.array([starts[i] for i in order])
        count = np.array([len(tokens[i]) for i in order])
        stop = np.cumsum(count)
        within = np.arange(stop[-1]) - np.repeat(stop - count, count)
        last = np.empty(len(order), dtype=np.int64)
        last[order] = stop - 1
        flat = np.fromiter(chain.from_iterable(tokens[i] for i in order), np.int64, int(stop[-1]))
        single = int((count == 1).sum())
        return Packing(
            tokens=self._tensor(self._repeated(flat)),
            positions=self._tensor(self._repeated(np.repeat(start, count) + within)),
            slots=self._tensor(np.repeat(slot, count)),
            last=self._tensor(self._repeated(last)),
            runs=list(self._runs(slot[:single], start[:single] + 1)),
            chunks=list(self._chunks(*(x[single:] for x in (slot, start, count, stop)))),
        )

    def _repeated(self, values: np.ndarray) -> np.ndarray:
        """The last value again and again, up to the grain."""
        return np.pad(values, (0, up(len(values), self._grain.tokens) - len(values)), "edge")

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _runs(self, slot: np.ndarray, length: np.ndarray) -> Iterator[RowRun]:
        if not len(slot):
            return
        breaks = np.flatnonzero(np.diff(slot) > _GAP + 1) + 1
        for first, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), len(slot)], strict=True):
            low, high = int(slot[first]), int(slot[stop - 1]) + 1
            longest = self._grain.seen(int(length[first:stop].max()))
            dense = None if high - low == stop - first else self._tensor(slot[first:stop] - low)
            # An idle slot attends to its first entry: a row of nothing but -inf would be NaN.
            visible = np.ones(high - low, dtype=np.int64)
            visible[slot[first:stop] - low] = length[first:stop]
            mask = None
            if dense is not None or visible.min() < longest:
                hidden = np.arange(longest) >= visible[:, None]
                mask = self._tensor(np.where(hidden, np.float32(-np.inf), np.float32(0)))
                mask = mask.to(self._dtype)[:, None, None]
            yield RowRun(slice(low, high), slice(first, stop), dense, longest, mask)

    def _chunks(
        self, slot: np.ndarray, start: np.ndarray, count: np.ndarray, stop: np.ndarray
    ) -> Iterator[Any]:
        """Of rows with several new tokens: slot, first position, how many, one past the last."""
        for row in zip(slot, start, count, stop, strict=True):
            yield self._chunk(*map(int, row))

    def _chunk(self, slot: int, start: int, count: int, stop: int) -> _Chunk:
        packed = slice(stop - count, stop)
        seen = self._grain.seen(start + count)
        if start == 0:
            return _Chunk(slot, packed, seen, None)
        shape = (up(count, self._grain.queries), seen)
        mask = torch.full(shape, -torch.inf, dtype=self._dtype, device=self._device)
        return _Chunk(slot, packed, seen, mask.triu_(start + 1))
