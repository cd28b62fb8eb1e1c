"""Llama, Qwen2 and Qwen3 over a preallocated KV cache of ragged rows.

Linear layers run on the packed new tokens of all rows, so no row is padded. Only attention
distinguishes rows: those with one new token (decoding) share calls, see ``decode_plan``, prefills
run one by one. On a CPU a call with many tokens is split, one part per core.

On a CPU in float32 results are batch-invariant to the last bit unless this is switched off: see
``agentgym.engines.local.batch_invariance``. Then openings that rows have in common are not shared:
where they end depends on the other rows.

Axes: N packed new tokens, R rows, H hidden, K key/value heads, G query heads per key/value head,
D head size, S cached positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agentgym.engines.local import batch_invariance
from agentgym.engines.local.batch_invariance import round_up
from agentgym.engines.local.decoder import Prefix
from agentgym.engines.local.fused_weights import FusedWeights, head_size
from agentgym.engines.local.packing import DecodeRun, Packer, Packing, SharedOpening
from agentgym.engines.local.parallel import run_parallel, split_rows
from agentgym.engines.weight_stream import WeightStream


class SlottedDecoder:
    """Owns its weights and KV cache; the cache grows with the longest row."""

    _packer_type = Packer

    def __init__(
        self,
        config: Any,
        weights: Mapping[str, Tensor],
        *,
        context: int,
        dtype: torch.dtype,
        device: torch.device,
        batch_invariant: bool = True,
    ) -> None:
        self.vocabulary = int(config.vocab_size)
        self._dtype, self._device = dtype, device
        if device.type == "cuda":
            # cuDNN builds a plan for every shape, and shapes rarely repeat.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self._context = context
        self._weights = FusedWeights(config, weights, dtype=dtype, device=device)
        self._heads: int = config.num_attention_heads
        self._kv: int = config.num_key_value_heads
        self._size = head_size(config)
        self._shares = device.type == "cpu" and not batch_invariant
        self._padding = batch_invariance.NO_PADDING
        if device.type == "cpu" and batch_invariant:
            widths = {config.hidden_size, config.intermediate_size, self._heads * self._size}
            self._padding = batch_invariance.padding_for(self._size, tuple(sorted(widths)))
        elif device.type == "cpu":
            self._padding = batch_invariance.FAST_ON_CPU
        self._packer = self._packer_type(self._padding, dtype, device, self._heads // self._kv)
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

    def load(self, weights: WeightStream) -> None:
        """Copy the weights of a Hugging Face state dict."""
        self._weights.load(weights)
        # Diverged weights may leave NaN in the cache, which would spread via masked positions.
        with torch.inference_mode():
            for pair in self._cache:
                for part in pair:
                    part.zero_()

    # ---- cache -------------------------------------------------------------------------------

    def release(self) -> None:
        """Free the memory of the cache."""
        self._cache = [(self._empty(0, 0), self._empty(0, 0)) for _ in self._weights.layers]

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copy cached keys and values between slots."""
        self._reserve(target + 1, self._padding.keys_for(length))
        for pair in self._cache:
            for part in pair:
                part[target, :, :length] = part[source, :, :length]

    def _reserve(self, slots: int, length: int) -> bool:
        """Grow the cache if needed, by at least half, so that copies are rare; whether it grew."""
        held, _, room, _ = self._cache[0][0].shape
        if slots <= held and length <= room:
            return False
        slots = max(slots, held if slots <= held else held * 3 // 2)
        if length > room:
            length = min(
                self._padding.keys_for(self._context), round_up(max(length, room * 3 // 2), 64)
            )
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
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        prefixes: Sequence[Prefix | None] = (),
    ) -> Tensor:
        """Append tokens to rows; [R, V] logits after the last token of each."""
        if not self._shares or not prefixes:
            prefixes = [None] * len(rows)
        ends = [start + len(new) for start, new in zip(starts, tokens, strict=True)]
        self._reserve(max(rows) + 1, self._padding.keys_for(max(ends)))
        cores = torch.get_num_threads() if self._device.type == "cpu" else 1
        pieces = split_rows(rows, [len(new) for new in tokens], cores)

        @torch.inference_mode()  # Which is a thread's own.
        def compute(piece: Sequence[int] | np.ndarray) -> Tensor:
            pack = self._packer.pack(
                [rows[i] for i in piece],
                [starts[i] for i in piece],
                [tokens[i] for i in piece],
                [prefixes[i] for i in piece],
            )
            return self._forward(pack)[: len(piece)]

        if not pieces:
            return compute(range(len(rows)))
        logits = torch.cat(run_parallel(compute, pieces, cores))
        return logits[self._packer.tensor(np.argsort(np.concatenate(pieces)))]

    def _forward(self, pack: Packing) -> Tensor:
        """[R, V] logits after the last tokens."""
        kept = len(pack.slots)
        x = F.embedding(pack.tokens, self._weights.embedding)
        cos, sin = self._cos[pack.positions], self._sin[pack.positions]
        rotated = self._heads + self._kv
        for layer, (keys, values) in zip(self._weights.layers, self._cache, strict=True):
            h = F.rms_norm(x, x.shape[-1:], layer.norm_attention, self._eps)
            qkv = layer.qkv(h).view(len(x), -1, self._size)
            qk = qkv[:, :rotated]
            if layer.qk_norm is not None:
                qk = F.rms_norm(qk, (self._size,), None, self._eps) * layer.qk_norm
            qk = torch.addcmul(qk * cos, qk.roll(self._size // 2, -1), sin)
            places = pack.slots, slice(None), pack.positions[:kept]
            keys[places] = qk[:kept, self._heads :]
            values[places] = qkv[:kept, rotated:]
            mixed = self._attend(qk[:, : self._heads], keys, values, pack)
            x = x + layer.out(mixed)
            h = F.rms_norm(x, x.shape[-1:], layer.norm_mlp, self._eps)
            gate, up = layer.gate_up(h).chunk(2, -1)
            x = x + layer.down(F.silu(gate) * up)
        x = F.rms_norm(x[pack.last], x.shape[-1:], self._weights.norm, self._eps)
        return self._weights.head(x)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, pack: Packing) -> Tensor:
        """[N, heads * D]: causal attention of each token over its row."""
        out = torch.zeros_like(query, memory_format=torch.contiguous_format)
        query = query.view(-1, self._kv, self._heads // self._kv, self._size)
        mixed = out.view_as(query)
        sums = query.new_empty(query.shape[:3], dtype=torch.float32) if pack.shared else None
        for run in pack.decodes:
            q = self._run_queries(query, run)
            k, v = keys[run.slots, :, run.positions], values[run.slots, :, run.positions]
            if sums is None:
                o = F.scaled_dot_product_attention(q, k, v, attn_mask=run.mask)
            else:
                o, s = _attend_with_sums(q, k, v, run.mask)
                sums[run.packed] = run.answers(s, query.shape[2])
            mixed[run.packed] = run.answers(o, query.shape[2])
        if sums is not None:
            for opening in pack.shared:
                self._join_opening(query, mixed, sums, keys, values, opening)
        self._attend_prefills(query, mixed, keys, values, pack.prefills)
        return out.view(len(out), -1)

    def _run_queries(self, query: Tensor, run: DecodeRun) -> Tensor:
        """[slots, K, G padded, D], 0 for idle slots."""
        # The group axis takes the place of the query axis: keys need no repeating.
        q = query[run.packed]
        if run.dense is not None:
            spread = q.new_zeros((run.slots.stop - run.slots.start, *q.shape[1:]))
            q = spread.index_copy_(0, run.dense, q)
        return self._pad_queries(q)

    def _join_opening(
        self,
        query: Tensor,
        mixed: Tensor,
        sums: Tensor,
        keys: Tensor,
        values: Tensor,
        opening: SharedOpening,
    ) -> None:
        """Add to rows, which have attended to what follows it, the opening that they share.

        ``sums`` are the logarithms of the sums of their weights so far, [N, K, G].
        """
        # All rows are queries of one row.
        q = query[opening.packed].transpose(0, 1).flatten(1, 2)[None]
        k, v = (x[opening.slot, None, :, : opening.length] for x in (keys, values))
        o, s = _attend_with_sums(q, k, v, None)
        o = o.view(self._kv, -1, *query.shape[2:]).transpose(0, 1)
        s = s.view(self._kv, -1, query.shape[2]).transpose(0, 1)
        share = torch.sigmoid(s - sums[opening.packed])[..., None].to(o.dtype)
        mixed[opening.packed] = torch.lerp(mixed[opening.packed], o, share)

    def _attend_prefills(
        self, query: Tensor, mixed: Tensor, keys: Tensor, values: Tensor, prefills: Sequence[Any]
    ) -> None:
        """Rows with several new tokens; both [N, K, G, D]."""
        for prefill in prefills:
            # The group axis takes the place of the batch axis, over which keys are expanded.
            q = query[prefill.packed].permute(2, 1, 0, 3)
            k = keys[prefill.slot, :, : prefill.length].expand(len(q), -1, -1, -1)
            v = values[prefill.slot, :, : prefill.length].expand(len(q), -1, -1, -1)
            causal = prefill.mask is None
            o = F.scaled_dot_product_attention(
                self._pad_queries(q), k, v, attn_mask=prefill.mask, is_causal=causal
            )
            mixed[prefill.packed] = o[:, :, : q.shape[2]].permute(2, 1, 0, 3)

    def _pad_queries(self, query: Tensor) -> Tensor:
        """Pad the query axis with zeros to the batch-invariant multiple."""
        count = query.shape[2]
        return F.pad(query, (0, 0, 0, round_up(count, self._padding.queries) - count))


def _attend_with_sums(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention on a CPU, and the logarithm of the sum of its weights; [B, K, Q]."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mixed, sums = attend(query, keys, values, attn_mask=mask)
    return mixed, sums
