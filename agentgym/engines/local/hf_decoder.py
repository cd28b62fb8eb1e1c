"""Any Hugging Face causal language model, through its own cache, one row at a time.

The general fallback; ``slotted`` is the fast decoder for common architectures.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from agentgym.engines.local.decoder import Prefix
from agentgym.engines.requests import check_shapes
from agentgym.engines.weight_stream import WeightStream
from agentgym.models.protocols import CausalLM


@dataclass(slots=True)
class _Row:
    tokens: list[int] = field(default_factory=list)
    """Cached tokens."""
    cache: Any = None


class HFDecoder:
    """A private copy of the model and one of its own caches per row.

    A cache that cannot be truncated (sliding windows, recurrent states) is recomputed from the
    row's tokens when needed.
    """

    def __init__(self, model: CausalLM, *, dtype: torch.dtype, device: torch.device) -> None:
        self._model = copy.deepcopy(model).to(device=device, dtype=dtype).eval()
        self._model.requires_grad_(False)
        self._device = device
        self.vocabulary = int(self._model.get_input_embeddings().weight.shape[0])
        parameters = inspect.signature(self._model.forward).parameters
        self._caches = "past_key_values" in parameters
        # Only the last logits are needed; most models have an argument for that.
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._rows: dict[int, _Row] = {}

    def load(self, weights: WeightStream) -> None:
        """Copy weights; of tied weights, one name is enough."""
        own = self._model.state_dict()
        given = {own[name].data_ptr() for name in weights.shapes if name in own}
        needed = {
            name: tensor
            for name, tensor in own.items()
            if name in weights.shapes or tensor.data_ptr() not in given
        }
        check_shapes({name: tensor.shape for name, tensor in needed.items()}, weights.shapes)
        self._rows.clear()
        with torch.no_grad():
            for name, weight in weights:
                if name in needed:
                    needed[name].copy_(weight)

    def release(self) -> None:
        """Free the memory of all caches."""
        self._rows.clear()

    @torch.inference_mode()
    def extend(
        self,
        rows: Sequence[int],
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        prefixes: Sequence[Prefix | None] = (),
    ) -> Tensor:
        """Append tokens to rows; [R, V] logits after the last token of each."""
        work = zip(rows, starts, tokens, strict=True)
        return torch.stack([self._extend(row, start, new) for row, start, new in work])

    def _extend(self, number: int, start: int, new: Sequence[int]) -> Tensor:
        row = self._cut(number, start)
        feed = list(new) if row.cache is not None else [*row.tokens, *new]
        ids = torch.tensor([feed], device=self._device)
        keep = {"past_key_values": row.cache, "use_cache": True} if self._caches else {}
        # Dropped first: a call that fails half-way leaves an invalid cache.
        self._rows[number] = _Row(row.tokens)
        output = self._model(input_ids=ids, **keep, **self._extra)
        cache = output.past_key_values if self._caches else None
        self._rows[number] = _Row([*row.tokens, *new], cache)
        logits: Tensor = output.logits[0, -1]
        return logits

    def _cut(self, number: int, length: int) -> _Row:
        """The row truncated to ``length`` tokens; without a cache if that cannot be truncated."""
        row = self._rows.get(number, _Row())
        if length == len(row.tokens):
            return row
        cache = row.cache if length and _can_crop(row.cache) else None
        if cache is not None:
            cache.crop(length)
        return _Row(row.tokens[:length], cache)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy a row's cache."""
        row = self._rows[source]
        self._rows[target] = _Row(list(row.tokens), copy.deepcopy(row.cache))
        self._rows[target] = self._cut(target, length)


def _can_crop(cache: Any) -> bool:
    """Whether every layer of the cache is the plain append-only kind."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return type(cache) is DynamicCache and all(type(x) is DynamicLayer for x in cache.layers)
