"""Models in a single GGUF file, as llama.cpp uses them: weights, tokenizer and chat template.

transformers reads the file and expands quantized weights, so that such a model can be trained and
is saved as an ordinary Hugging Face folder.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.errors import MissingExtra


class Source(NamedTuple):
    """Where a model is loaded from: the arguments of ``from_pretrained``."""

    name: str
    """Folder or hub id."""
    options: dict[str, Any]
    """Keyword arguments for configuration, tokenizer and model alike."""
    weights: dict[str, Any]
    """Further keyword arguments for the model."""


def is_gguf(path: str | Path) -> bool:
    """Whether a model is named by its GGUF file."""
    return str(path).endswith(".gguf")


def source(path: str | Path) -> Source:
    """The arguments with which transformers loads a folder, a hub id or a GGUF file.

    Raises:
        MissingExtra: A GGUF file is given and the package that reads it is not installed.
    """
    if not is_gguf(path):
        return Source(str(path), {}, {})
    if find_spec("gguf") is None:
        raise MissingExtra("GGUF files need gguf: pip install 'agentic-gym[gguf]'")
    from transformers import GgufConfig

    file = Path(path)
    expanded: Any = GgufConfig(dequantize=True)
    return Source(str(file.parent), {"gguf_file": file.name}, {"quantization_config": expanded})
