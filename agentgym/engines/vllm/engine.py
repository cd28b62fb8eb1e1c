"""Samples with vLLM in this process: paged attention, prefix cache, its own scheduler.

One thread owns vLLM; other threads queue calls for it. Needs the extra ``vllm``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from agentgym.engines.requests import ModelLimits, check_request, check_shapes
from agentgym.engines.stats import EngineStats
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.engines.vllm.arguments import check_temperature
from agentgym.engines.vllm.model_info import ModelInfo
from agentgym.engines.vllm.thread import Job, VLLMThread
from agentgym.engines.weight_stream import WeightStream
from agentgym.errors import ConfigError, EngineError
from agentgym.types import Completion, Sampling

if TYPE_CHECKING:
    import torch

STALL_SECONDS = 1800.0
"""Seconds without progress after which vLLM counts as hung; large models start slowly."""


class VLLMEngine:
    """vLLM's scheduler batches the requests in flight; its prefix cache reuses past turns.

    ``load`` empties that cache; completions in flight continue under the new weights, and every
    token records its version. The engine owns its weights: a trainer may change its model while
    the engine samples. A seed fixes a completion up to rounding, which depends on the batch.

    Log-probabilities are those of the distribution sampled from, and entropies are exact. With a
    version of vLLM that has another sampler, entropies are lower bounds: ``entropy_at_least`` of
    the 20 most likely tokens; ``exact_entropies`` states which.

    Args:
        model: Hugging Face folder or hub id.
        slots: Largest batch.
        context: Longest prompt plus completion, in tokens; at most what the model supports.
        dtype: Of weights and cache; default: float32 on a CPU, bfloat16 on a GPU.
        adapters: PEFT's configuration of LoRA adapters, which ``load`` takes instead of weights.
        options: Further arguments of vLLM's ``EngineArgs``, such as ``gpu_memory_utilization``.

    Raises:
        MissingExtra: vLLM is not installed.
        ConfigError: There is no such model.
        EngineError: vLLM could not start; with its message.
    """

    def __init__(
        self,
        model: str,
        *,
        slots: int = 64,
        context: int = 4096,
        dtype: str | None = None,
        adapters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if slots < 1 or context < 2:
            raise ConfigError(f"slots must be >= 1 and context >= 2, got {slots} and {context}")
        self._info = ModelInfo.read(model)
        self.context = min(context, self._info.context or context)
        self.takes_adapters = adapters is not None
        self._adapters = None if adapters is None else AdapterFolder(adapters)
        if self._adapters is not None:
            options = {"enable_lora": True, "max_lora_rank": self._adapters.rank, **options}
        arguments = {
            "model": model,
            "max_num_seqs": slots,
            "max_model_len": self.context,
            "dtype": dtype,
            **options,
        }
        self._thread = VLLMThread(arguments, self._adapters)
        _await(self._thread.started, "to start")

    @property
    def version(self) -> int:
        """Of the weights that sample now."""
        return self._thread.version

    @property
    def exact_entropies(self) -> bool:
        """Whether entropies are exact, or lower bounds."""
        return self._thread.exact_entropies

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Sample one completion.

        Raises:
            ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
                outside the vocabulary; or a sampling parameter is out of range.
            EngineError: vLLM failed.
        """
        tokens = list(prompt)
        check_request(tokens, sampling, ModelLimits(self.context, self._info.vocabulary))
        check_temperature(sampling)
        self._check_open()
        loop = asyncio.get_running_loop()
        job = Job(tokens, sampling, loop, loop.create_future())
        self._thread.ask(job)
        try:
            while not (await asyncio.wait([job.future], timeout=STALL_SECONDS))[0]:
                if time.monotonic() - self._thread.active > STALL_SECONDS:
                    raise EngineError(f"vLLM has done nothing for {STALL_SECONDS:g} s")
            return job.future.result()
        finally:
            job.future.cancel()

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do: vLLM evicts the least recently used blocks."""

    def sleep(self) -> None:
        """On a GPU vLLM drops its caches and moves its weights to the CPU."""
        self._thread.sleep()

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Copy new weights in, a state dict of the same architecture; drops every cache.

        Waits for the model call in progress. May be called from any thread but the engine's own.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            EngineError: vLLM failed.
        """
        self.load_stream(WeightStream.of(weights), version)

    @property
    def stream_device(self) -> str:
        """Type of the device on which weights are read as they arrive."""
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """As ``load``, one weight after another; where they stop arriving, requests wait.

        Raises:
            ConfigError: A weight is missing or has another shape; nothing was changed.
            BrokenStream: They stopped arriving.
            EngineError: vLLM failed.
        """
        if not self.takes_adapters:
            check_shapes(self._info.shapes, weights.shapes)
        self._check_open()
        _await(self._thread.adopt(weights, version), "to take new weights")

    def stats(self) -> EngineStats:
        """Counters so far; ``now.since(before)`` gives the difference."""
        return self._thread.stats

    def close(self) -> None:
        """Free the memory of the model; completions in flight fail."""
        self._thread.stop(STALL_SECONDS)
        if self._adapters is not None:
            self._adapters.close()

    def _check_open(self) -> None:
        if not self._thread.alive:
            raise EngineError("the engine was closed")


def _await(done: Future[None], what: str) -> None:
    """Wait in a thread that is not the engine's."""
    try:
        done.result(STALL_SECONDS)
    except TimeoutError:
        raise EngineError(f"vLLM took more than {STALL_SECONDS:g} s {what}") from None
