"""Metadata of a saved model, read without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.errors import ConfigError

if TYPE_CHECKING:
    import torch


class ModelInfo(NamedTuple):
    """A Hugging Face folder or hub id."""

    path: str
    vocabulary: int
    """Number of token ids."""
    context: int | None
    """Longest context that it supports, in tokens; None if unlimited."""
    shapes: Mapping[str, torch.Size]
    """Of its state dict."""

    @classmethod
    def read(cls, path: str) -> ModelInfo:
        """Read its configuration.

        Raises:
            ConfigError: There is no such model.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        try:
            config = AutoConfig.from_pretrained(path)
            with torch.device("meta"):
                bare: Any = AutoModelForCausalLM
                weights = bare.from_config(config).state_dict()
        except (OSError, ValueError, KeyError) as problem:
            raise ConfigError(
                f"no causal language model at {path}: expected a Hugging Face folder or hub id "
                f"({' '.join(str(problem).split())[:200]})"
            ) from problem
        text = config.get_text_config()
        return cls(
            path,
            text.vocab_size,
            getattr(text, "max_position_embeddings", None),
            {name: weight.shape for name, weight in weights.items()},
        )
