"""Extension of vLLM's worker: exact entropies, and weight updates that reach a tied head.

Runs in the process of the model: this one, or a worker process of a server. Needs vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class WorkerExtension:
    """Mixed into vLLM's worker class (``worker_extension_cls``); methods are called by name."""

    model_runner: Any

    def agentgym_report_entropies(self) -> bool:
        """Report the entropy at a sampled token in place of the second log-probability.

        vLLM reports the k most likely tokens beside the sampled one. For k = 1 the entropy of the
        distribution sampled from, which is not negative, replaces that one log-probability, which
        is not positive.

        Returns:
            Whether this version of vLLM has the sampler that the replacement fits.
        """
        from vllm.v1.sample.sampler import Sampler

        sampler = self.model_runner.sampler
        if type(sampler) is not Sampler:
            return False
        sampler.gather_logprobs = _Gather()
        return True

    def agentgym_load(self, weights: Iterable[tuple[str, Tensor]] | str) -> None:
        """Load new weights: named tensors as they arrive, or the safetensors files of a folder."""
        named = _stored(Path(weights)) if isinstance(weights, str) else iter(weights)
        self.reload_weights(weights_iterator=named)  # type: ignore[attr-defined]
        runner = self.model_runner
        _pack_head_again(runner.get_model())
        gather = getattr(runner.sampler, "gather_logprobs", None)
        if not isinstance(gather, _Gather) or gather.take_broken():
            # Masked attention multiplies by zero, and 0 * NaN is NaN.
            for cache in runner.kv_caches:
                cache.zero_()


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors.torch import load_file

    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()


def _pack_head_again(model: Any) -> None:
    """On a CPU a tied head computes with a packed copy that a reload does not update."""
    head: Any = getattr(model, "lm_head", None)
    tied = getattr(model.config, "tie_word_embeddings", False)
    if head is None or not tied or not hasattr(head, "cpu_linear"):
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    head.weight = model.model.embed_tokens.weight
    dispatch_cpu_unquantized_gemm(head, remove_weight=False)


class _Gather:
    """Replaces ``Sampler.gather_logprobs``; remembers whether it saw a NaN."""

    def __init__(self) -> None:
        self._broken: Tensor | None = None

    def __call__(self, logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> Any:
        """[R, V] log-probabilities, [R] sampled tokens."""
        from vllm.v1.outputs import LogprobsTensors
        from vllm.v1.sample.sampler import Sampler

        if num_logprobs != 1:
            return Sampler.gather_logprobs(logprobs, num_logprobs, token_ids)
        picked = logprobs.gather(-1, token_ids[:, None])
        # Kept on the device: reading it here would synchronise the accelerator.
        broken = picked.isnan().any()
        self._broken = broken if self._broken is None else self._broken | broken
        # 0 * log 0 = 0 for tokens that cannot be drawn.
        entropy = -(logprobs.exp() * logprobs.clamp(min=torch.finfo(logprobs.dtype).min)).sum(-1)
        # The two columns become entries of one dictionary, so their ids must differ.
        ids = torch.stack([token_ids, (token_ids + 1) % logprobs.shape[-1]], -1).to(torch.int32)
        reported = torch.cat([picked, entropy.clamp(min=0.0)[:, None]], -1)
        # A log-probability is never 1, and JSON has no NaN.
        reported = torch.where(reported.isnan(), 1.0, reported)
        return LogprobsTensors(ids, reported, (logprobs >= picked).sum(-1))

    def take_broken(self) -> bool:
        """Whether there was a NaN since the last call."""
        broken, self._broken = self._broken, None
        return broken is not None and bool(broken)
