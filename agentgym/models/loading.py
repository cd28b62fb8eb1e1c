"""Loading models and tokenizers from Hugging Face folders, hub ids and GGUF files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import torch

from agentgym.errors import ConfigError
from agentgym.models.gguf import is_gguf, source
from agentgym.models.lora import base_model_of, check_adapters, load_adapters
from agentgym.models.protocols import CausalLM, Tokenizer

UNREADABLE = (OSError, ValueError, LookupError, NotImplementedError, struct.error)
"""What transformers raises for a name or a folder that holds no model it knows."""


def load_model(
    path: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None
) -> CausalLM:
    """A causal language model, with adapters on top of their base, ready for further training.

    Args:
        path: Folder, hub id or GGUF file.
        device: Where the model goes; None: a GPU where there is one.
        dtype: Of the weights; None: float32 on a CPU, bfloat16 on a GPU.

    Raises:
        ConfigError: There is no such model.
        MissingExtra: A GGUF file is given and the package that reads it is not installed.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = dtype or (torch.float32 if where == "cpu" else torch.bfloat16)
    base = base_model_of(path)
    try:
        name, options, weights = source(base or path)
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=kind, **options, **weights)
    except UNREADABLE as problem:
        raise ConfigError(_no_model(path, problem, base)) from problem
    if is_gguf(base or path):
        # Adapters name their base by it, which is the file, not its folder.
        model.name_or_path = str(Path(base or path).resolve())
    if base is not None:
        load_adapters(model, path)
    placed: CausalLM = model.to(where)
    return placed


def check_model(path: str | Path, *, context: int = 0, needs_template: bool = True) -> None:
    """Refuse anything but a causal language model with a tokenizer and a chat template.

    Reads configurations only, no weights.

    Args:
        path: Folder, hub id or GGUF file.
        context: Tokens that the model has to be able to read.
        needs_template: Refuse a tokenizer without a chat template.

    Raises:
        ConfigError: There is no such model, its adapters do not fit its base, or its context is
            too short.
        MissingExtra: A GGUF file is given and the package that reads it is not installed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    base = base_model_of(path)
    try:
        name, options, _ = source(base or path)
        found = AutoConfig.from_pretrained(name, **options)
    except UNREADABLE as problem:
        raise ConfigError(_no_model(path, problem, base)) from problem
    if type(found) not in AutoModelForCausalLM._model_mapping:
        raise ConfigError(_no_model(path, ValueError(f"its type is {found.model_type}")))
    if base is not None:
        check_adapters(path, base, found)
    longest = getattr(found.get_text_config(), "max_position_embeddings", None)
    if longest is not None and context > longest:
        raise ConfigError(
            f"rollout.max_context_tokens is {context}, expected at most {longest}, the longest "
            f"context of {str(path)!r}"
        )
    if needs_template and not getattr(load_tokenizer(path), "chat_template", None):
        raise ConfigError(
            f"{str(path)!r} has no chat template, as base models have none: give the instruct "
            f"version of the model, or set `--agent.chat-template plain`"
        )


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer beside a model; adapters without one use that of their base.

    Raises:
        ConfigError: There is none.
        MissingExtra: A GGUF file is given and the package that reads it is not installed.
    """
    from transformers import AutoTokenizer

    try:
        name, options, _ = source(path)
        return AutoTokenizer.from_pretrained(name, **options)
    except UNREADABLE as problem:
        if base := base_model_of(path):
            return load_tokenizer(base)
        raise ConfigError(_no_model(path, problem)) from problem


def _no_model(path: str | Path, problem: Exception, base: str | None = None) -> str:
    first = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    name = base or str(path)
    # Hub ids have at most one slash.
    if not Path(name).exists() and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        first = "there is no such folder or file"
    where = (
        f"{str(path)!r}" if base is None else f"{base!r}, which {str(path)!r} names as its base,"
    )
    return (
        f"{where} is no causal language model: expected a Hugging Face model folder, a hub id "
        f"or a GGUF file of a supported architecture ({first})"
    )
