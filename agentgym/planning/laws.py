"""How long a machine takes: decoding, prefill, training, publishing.

A decoding step reads all weights and all caches once, so it takes their bytes over the memory's
bandwidth; prefill and training take 2 floating-point operations per parameter and token forward,
4 backward (Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1). What a
machine reaches of its peak is the same share for all GPUs here, as measured on H100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from agentgym.errors import ConfigError, did_you_mean

Thing = TypeVar("Thing")

BANDWIDTH = 0.75
"""Share of the memory's bandwidth that decoding reaches."""
PREFILL = 0.5
"""Share of the peak that prefill reaches."""
TRAINING = 0.40
"""Share of the peak that training reaches."""
STEP_SECONDS = 3e-3
"""Of a decoding step, besides reading memory: kernel launches, sampling, scheduling."""
MEMORY = 0.9
"""Share of a GPU's memory that an engine uses."""
PUBLISH_BANDWIDTH = 5e9
"""Bytes per second from the trainer to the engines."""
TRAINED_BYTES = 18
"""Per trained parameter: weight, gradient and two moments in float32, weight in bfloat16."""
ADAPTER_SHARE = 0.005
"""Parameters of LoRA adapters over those of the model, at rank 16."""


@dataclass(frozen=True)
class ModelSize:
    """A model, as far as time and memory depend on it."""

    parameters: float
    cache_bytes: int
    """KV cache per token, in bfloat16: 4 x layers x KV heads x head size."""

    @property
    def weight_bytes(self) -> float:
        """Of the weights in bfloat16."""
        return 2 * self.parameters


@dataclass(frozen=True)
class Gpu:
    """An accelerator, from its data sheet."""

    flops: float
    """Peak operations per second in bfloat16, without sparsity."""
    bandwidth: float
    """Bytes per second of its memory."""
    memory: float
    """Bytes."""


MODELS = {
    "0.5B": ModelSize(0.494e9, 12_288),
    "1.5B": ModelSize(1.54e9, 28_672),
    "3B": ModelSize(3.09e9, 36_864),
    "7B": ModelSize(7.62e9, 57_344),
    "8B": ModelSize(8.03e9, 131_072),
    "14B": ModelSize(14.8e9, 196_608),
    "32B": ModelSize(32.8e9, 262_144),
    "72B": ModelSize(72.7e9, 327_680),
}
"""Qwen2.5, and Llama 3.1 for 8B."""

GPUS = {
    "A100": Gpu(312e12, 2.04e12, 80e9),
    "B200": Gpu(2250e12, 8.0e12, 180e9),
    "H100": Gpu(989e12, 3.35e12, 80e9),
    "H200": Gpu(989e12, 4.8e12, 141e9),
    "L40S": Gpu(362e12, 0.864e12, 48e9),
    "RTX4090": Gpu(165e12, 1.01e12, 24e9),
}


@dataclass(frozen=True)
class Laws:
    """Seconds of everything that takes time, for one model on one kind of GPU."""

    model: ModelSize
    gpu: Gpu
    lora: bool = False
    """Adapters are trained and published instead of all weights."""

    def decoding_step(self, tokens: float) -> float:
        """Seconds of one decoding step of an engine.

        Args:
            tokens: In the caches of the sequences that are decoded together.
        """
        read = self.model.weight_bytes + tokens * self.model.cache_bytes
        return STEP_SECONDS + read / (BANDWIDTH * self.gpu.bandwidth)

    def prefill(self, tokens: float) -> float:
        """Seconds in which an engine reads new tokens of a prompt."""
        return 2 * self.model.parameters * tokens / (PREFILL * self.gpu.flops)

    def training(self, tokens: float, gpus: int) -> float:
        """Seconds of an update: forward for what credit needs, forward, recomputed, and backward.

        With adapters the backward pass has no products for the gradients of weights.
        """
        per_token = (8 if self.lora else 10) * self.model.parameters
        return per_token * tokens / (gpus * TRAINING * self.gpu.flops)

    def publish(self) -> float:
        """Seconds until the engines have new weights."""
        share = ADAPTER_SHARE if self.lora else 1.0
        return share * self.model.weight_bytes / PUBLISH_BANDWIDTH

    def cached_tokens(self) -> float:
        """Tokens for which an engine on one GPU has room in its cache; negative: for none."""
        room = MEMORY * self.gpu.memory - self.model.weight_bytes
        return room / self.model.cache_bytes

    def fewest_trainers(self) -> int:
        """GPUs that hold what training keeps, with a third of their memory left for activations."""
        trained = TRAINED_BYTES * self.model.parameters
        if self.lora:
            trained = self.model.weight_bytes + ADAPTER_SHARE * trained
        return max(1, -int(-trained // (self.gpu.memory * 2 / 3)))


def model_size(name: str) -> ModelSize:
    """The model of a size such as ``7B``.

    Raises:
        ConfigError: It is not known.
    """
    return _known(MODELS, "model", name)


def gpu_named(name: str) -> Gpu:
    """The GPU of a name such as ``H100``.

    Raises:
        ConfigError: It is not known.
    """
    return _known(GPUS, "gpu", name)


def _known(things: dict[str, Thing], what: str, name: str) -> Thing:
    found = {each.lower(): thing for each, thing in things.items()}.get(name.lower())
    if found is None:
        near = did_you_mean(name.upper(), things)
        raise ConfigError(f"{what} is {name!r}.{near} Known: {', '.join(things)}")
    return found
