"""Samples from a Hugging Face model in this process, batching whatever is in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agentgym.engines.local import fused_weights
from agentgym.engines.local.cuda_graphs import GraphedDecoder
from agentgym.engines.local.decoder import Decoder
from agentgym.engines.local.hf_decoder import GenericDecoder
from agentgym.engines.local.scheduler import Batcher
from agentgym.engines.local.slotted import SlottedDecoder
from agentgym.engines.requests import Room, check_request
from agentgym.engines.stats import EngineStats
from agentgym.errors import ConfigError
from agentgym.models.lora import merged
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

__all__ = ["EngineStats", "LocalEngine"]


class LocalEngine:
    """Continuous batching over a cache that outlives the turn.

    Requests join and leave the batch at every token. The cache of a context stays in its slot, so
    a longer prompt that begins with it costs only its new tokens; ``finish`` says that a slot may
    go. Use at least as many slots as episodes in flight: beyond that, new episodes wait for a
    slot, or cost an old one its cache when there is nothing else to do.

    The engine owns a copy of the weights: a trainer may change its model while the engine
    samples. ``load`` drops every cache, because old weights computed it; completions in flight are
    read again and go on, and their tokens say which weights sampled them. A completion depends on
    its prompt, its ``Sampling`` and the weights, not on what else is in flight: bit by bit for
    models on fused weights in float32 on a CPU (``agentgym.engines.local.batch_invariance``), else
    up to rounding.

    The model runs in a thread of the engine's own. One event loop at a time.

    Args:
        model: A Hugging Face causal language model. Llama, Qwen2 and Qwen3 run on fused weights
            and one cache for all rows; anything else through its own cache, one row at a time.
            Adapters are added to the weights.
        slots: Contexts kept, and the largest batch.
        context: Longest prompt plus completion, in tokens; cut to what the model can address.
        dtype: Of weights and cache; the model's own by default.
        device: Where to run, such as a GPU that the trainer has not; the model's own by default.
        graphs: On a GPU, start a step of the model with one call. Not for an engine that samples
            while a trainer learns on the same GPU.
        bitwise: On a CPU, give a tenth of the speed so that completions do not depend on what else
            is in flight, not in their last bit; otherwise they are the same up to rounding.

    Raises:
        ConfigError: ``slots`` or ``context`` is not positive.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        graphs: bool = True,
        bitwise: bool = True,
    ) -> None:
        import torch

        if slots < 1 or context < 2:
            raise ConfigError(f"slots must be >= 1 and context >= 2, got {slots} and {context}")
        model = merged(model)
        parameter = next(model.parameters())
        dtype = dtype or parameter.dtype
        device = torch.device(device) if device is not None else parameter.device
        self.device = device
        limit = getattr(model.config, "max_position_embeddings", None)
        self.context = min(context, limit) if limit else context
        self._decoder: Decoder
        if fused_weights.supports(model):
            kind: Callable[..., Decoder] = SlottedDecoder
            if device.type == "cuda" and graphs:
                kind = partial(GraphedDecoder, slots=slots)
            self._decoder = kind(
                model.config,
                model.state_dict(),
                context=self.context,
                dtype=dtype,
                device=device,
                bitwise=bitwise,
            )
        else:
            self._decoder = GenericDecoder(model, dtype=dtype, device=device)
        self._batcher = Batcher(self._decoder, slots)

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> LocalEngine:
        """An engine for a saved model; options as in the constructor."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(path, dtype=options.get("dtype") or "auto")
        return cls(model, **options)

    @property
    def version(self) -> int:
        """Policy version of the weights, as told to ``load``; 0 at first."""
        return self._batcher.version

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
                outside the vocabulary; or a sampling parameter is out of range.
        """
        tokens = list(prompt)
        check_request(tokens, sampling, Room(self.context, self._decoder.vocabulary))
        return await self._batcher.submit(tokens, sampling)

    def finish(self, context: Sequence[int]) -> None:
        """The slot of this context may be given away. What it holds stays useful until then."""
        self._batcher.pool.finish(context)

    def rest(self) -> None:
        """Every cache goes; completions in flight are read again, and go on."""
        self._batcher.rest()

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
        """
        self._batcher.load(weights, version)

    def stats(self) -> EngineStats:
        """Counters so far; ``now.since(before)`` is what happened in between."""
        return self._batcher.stats
