"""What both engines ask of vLLM: environment variables, arguments, sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.errors import ConfigError
from agentgym.types import Sampling

TOP_LOGPROBS = 20
"""Most likely tokens requested where the worker cannot report entropies."""
EXTENSION = "agentgym.engines.vllm.worker.WorkerExtension"
ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # The worker extension fits the sampler of V1.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # The trainer's threads run on the same cores.
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Environment variables for vLLM, unless they are set already."""


def default_dtype(gpu: bool) -> str:
    """As ``load_model`` uses for the trainer, so that both compute alike."""
    return "bfloat16" if gpu else "float32"


def defaults(gpu: bool) -> dict[str, Any]:
    """Arguments of vLLM that the engines rely on, and that make it start fast on a CPU."""
    common = {
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": TOP_LOGPROBS,
        "enable_prefix_caching": True,
        "worker_extension_cls": EXTENSION,
        "generation_config": "vllm",
    }
    if gpu:
        # By default the trainer's model shares the GPU.
        return {**common, "gpu_memory_utilization": 0.5}
    # Compilation takes a minute and gains little; attention needs blocks of at least 32 tokens.
    # Chunked prefill makes vLLM rewind the seeded generator, which a CPU's cannot do.
    return {**common, "enforce_eager": True, "block_size": 32, "enable_chunked_prefill": False}


def sampling_params(sampling: Sampling, top: int) -> Any:
    """The ``SamplingParams`` of a request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        seed=sampling.seed,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop_token_ids=list(sampling.stop),
        ignore_eos=True,  # Only ``stop`` ends a completion.
        logprobs=top,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def check_temperature(sampling: Sampling) -> None:
    """Reject a temperature that vLLM would silently replace.

    Raises:
        ConfigError: The temperature is neither 0 nor in [0.01, 2].
    """
    if sampling.temperature and not 0.01 <= sampling.temperature <= 2.0:
        raise ConfigError(f"vLLM samples at temperature 0 or 0.01 to 2, got {sampling.temperature}")


def server_words(
    model: str, context: int, slots: int, dtype: str | None, options: Mapping[str, object]
) -> list[str]:
    """The command line of ``vllm serve``.

    Args:
        model: Folder or hub id.
        context: Longest prompt plus completion, in tokens.
        slots: Largest batch.
        dtype: Of weights and cache; None: ``default_dtype``.
        options: Further arguments, which win over ours.
    """
    import torch

    gpu = torch.cuda.is_available()
    settings = {
        "model": model,
        "host": "127.0.0.1",
        "dtype": dtype or default_dtype(gpu),
        "max-model-len": context,
        "max-num-seqs": slots,
        **{name.replace("_", "-"): value for name, value in defaults(gpu).items()},
        **options,
    }
    words = ["--disable-uvicorn-access-log"]
    for name, value in settings.items():
        if isinstance(value, bool):
            words += [f"--{name}" if value else f"--no-{name}"]
        else:
            words += [f"--{name}", str(value)]
    return words
