"""Loading models and tokenizers from Hugging Face folders and hub ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from agentgym.errors import ConfigError
from agentgym.models.lora import base_of, load_adapters


def load_model(path: str | Path, *, device: str | None = None, full: bool = False) -> Any:
    """A causal language model from a folder or hub id, in float32 on a CPU, bfloat16 on a GPU.

    Adapters are loaded on top of their base, ready to be trained further.

    Args:
        path: Of the folder, or the hub id.
        device: Where to; a GPU unless given, where there is one.
        full: In float32 on a GPU, too, as autocast has it.

    Raises:
        ConfigError: There is no such model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if full or where == "cpu" else torch.bfloat16
    base = base_of(path)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base or str(path), dtype=dtype)
    except (OSError, ValueError, KeyError) as problem:
        raise ConfigError(_no_model(path, problem, base)) from problem
    if base is not None:
        load_adapters(model, path)
    return model.to(where)


def check_model(path: str | Path) -> None:
    """Refuse what is no causal language model with a tokenizer, before anything else is done.

    Raises:
        ConfigError: There is no such model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    base = base_of(path)
    try:
        found = AutoConfig.from_pretrained(base or str(path))
    except (OSError, ValueError, KeyError) as problem:
        raise ConfigError(_no_model(path, problem, base)) from problem
    if type(found) not in AutoModelForCausalLM._model_mapping:
        raise ConfigError(_no_model(path, ValueError(f"its type is {found.model_type}")))
    load_tokenizer(path)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside a model; adapters without one have that of their base.

    Raises:
        ConfigError: There is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError, KeyError) as problem:
        if base := base_of(path):
            return load_tokenizer(base)
        raise ConfigError(_no_model(path, problem)) from problem


def _no_model(path: str | Path, problem: Exception, base: str | None = None) -> str:
    first = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    where = (
        f"{str(path)!r}" if base is None else f"{base!r}, which {str(path)!r} names as its base,"
    )
    return (
        f"{where} is no causal language model: expected a Hugging Face model folder "
        f"or hub id ({first})"
    )
