"""Samples from a Hugging Face model in this process with continuous batching."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agentgym.engines.local import fused_weights
from agentgym.engines.local.cuda_graphs import GraphedDecoder
from agentgym.engines.local.decoder import Decoder
from agentgym.engines.local.hf_decoder import HFDecoder
from agentgym.engines.local.scheduler import Scheduler
from agentgym.engines.local.slotted import SlottedDecoder
from agentgym.engines.requests import ModelLimits, check_request
from agentgym.engines.stats import EngineStats
from agentgym.engines.weight_stream import WeightStream
from agentgym.errors import ConfigError
from agentgym.models.lora import merge_lora
from agentgym.models.protocols import CausalLM
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

__all__ = ["EngineStats", "LocalEngine"]


class LocalEngine:
    """Continuous batching over a KV cache that persists between turns.

    Requests join and leave the batch at every token. The KV cache of a context stays in its slot,
    so a longer prompt with the same prefix costs only its new tokens; ``finish`` releases the slot.
    Use at least as many slots as episodes in flight: otherwise new episodes wait for a slot, or
    displace the cache of an old one when nothing else can run.

    The engine owns a copy of the weights: a trainer may change its model while the engine
    samples. ``load`` drops every cache, because old weights computed it; contexts in flight are
    prefilled again and continue, and every token records the version that sampled it. A completion
    depends on its prompt, its ``Sampling`` and the weights, not on what else is in flight:
    bit-exactly for models on fused weights in float32 on a CPU
    (``agentgym.engines.local.batch_invariance``), otherwise up to rounding.

    The model runs in the engine's own thread. One event loop at a time.

    Args:
        model: A Hugging Face causal language model. Llama, Qwen2 and Qwen3 run on fused weights
            and one cache for all rows; other models through their own cache, one row at a time.
            Adapters are merged into the weights.
        slots: Number of cached contexts, and the largest batch.
        context: Longest prompt plus completion, in tokens; at most what the model supports.
        dtype: Of weights and cache; default: that of the model.
        device: Where to run, such as a GPU that the trainer does not use; default: that of the
            model.
        cuda_graphs: On a GPU, launch a decoding step with one call. Not for an engine that samples
            while a trainer uses the same GPU.
        batch_invariant: On a CPU in float32, spend a tenth of the speed so that completions do not
            depend on the rest of the batch in any bit; otherwise, and in bfloat16, they are equal
            up to rounding.

    Raises:
        ConfigError: ``slots`` or ``context`` is not positive.
    """

    takes_adapters = False

    def __init__(
        self,
        model: CausalLM,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        cuda_graphs: bool = True,
        batch_invariant: bool = True,
    ) -> None:
        import torch

        if slots < 1 or context < 2:
            raise ConfigError(f"slots must be >= 1 and context >= 2, got {slots} and {context}")
        model = merge_lora(model)
        parameter = next(model.parameters())
        dtype = dtype or parameter.dtype
        device = torch.device(device) if device is not None else parameter.device
        self.device = device
        limit = getattr(model.config, "max_position_embeddings", None)
        self.context = min(context, limit) if limit else context
        self._decoder: Decoder
        if fused_weights.supports(model):
            kind: Callable[..., Decoder] = SlottedDecoder
            if device.type == "cuda" and cuda_graphs:
                kind = partial(GraphedDecoder, slots=slots)
            self._decoder = kind(
                model.config,
                model.state_dict(),
                context=self.context,
                dtype=dtype,
                device=device,
                batch_invariant=batch_invariant and dtype == torch.float32,
            )
        else:
            self._decoder = HFDecoder(model, dtype=dtype, device=device)
        self._scheduler = Scheduler(self._decoder, slots)

    @classmethod
    def from_pretrained(cls, path: str, **options: Any) -> LocalEngine:
        """An engine for a saved model; options as in the constructor."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(path, dtype=options.get("dtype") or "auto")
        return cls(model, **options)

    @property
    def version(self) -> int:
        """Policy version of the weights, as given to ``load``; initially 0."""
        return self._scheduler.version

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
                outside the vocabulary; or a sampling parameter is out of range.
        """
        tokens = list(prompt)
        check_request(tokens, sampling, ModelLimits(self.context, self._decoder.vocabulary))
        return await self._scheduler.submit(tokens, sampling)

    def finish(self, context: Sequence[int]) -> None:
        """Mark the slot of this context as free; its cache stays usable until it is reused."""
        self._scheduler.pool.finish(context)

    def sleep(self) -> None:
        """Free the caches; contexts in flight are prefilled again and continue."""
        self._scheduler.sleep()

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
        """
        self.load_stream(WeightStream.of(weights), version)

    @property
    def stream_device(self) -> str:
        """Type of the device on which weights are read as they arrive."""
        return self.device.type

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """As ``load``, one weight after another; where they stop arriving, requests wait.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            BrokenStream: They stopped arriving.
        """
        self._scheduler.load(weights, version)

    def stats(self) -> EngineStats:
        """Counters so far; ``now.since(before)`` gives the difference."""
        return self._scheduler.stats
