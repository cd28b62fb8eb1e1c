"""What this package needs of a model and of a tokenizer: the parts of transformers' interface.

Any object with these methods can stand in, such as a wrapped model. Classes of transformers
satisfy the protocols as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens and back, with the chat template of a model."""

    chat_template: Any
    """Jinja source of the template, or several by name; None: there is none."""
    eos_token_id: Any
    """Token that ends a text."""
    pad_token_id: Any
    """Token that fills rows to a common length."""
    all_special_tokens: Any
    """Texts of the special tokens."""

    def __len__(self) -> int:
        """Number of tokens, those added later included."""

    def encode(self, text: Any, *, add_special_tokens: bool = True) -> Any:
        """Token ids of a text."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> Any:
        """Text of token ids."""

    def apply_chat_template(
        self,
        conversation: Any,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
    ) -> Any:
        """A conversation as the model's template writes it."""

    def save_pretrained(self, save_directory: str | PathLike[str]) -> Any:
        """Write the tokenizer's files into a folder."""


@runtime_checkable
class CausalLM(Protocol):
    """A causal language model as transformers defines one."""

    config: Any
    """Sizes and kind of the model."""
    name_or_path: str
    """Folder, file or hub id that it was loaded from; empty for a new model."""

    def __call__(self, **inputs: Any) -> Any:
        """Logits of a batch of token ids, among other outputs."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def state_dict(self) -> dict[str, Any]:
        """All weights and buffers by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Replace weights and buffers."""

    def modules(self) -> Iterator[nn.Module]:
        """All submodules, itself first."""

    def get_decoder(self) -> Any:
        """The trunk, without the head."""

    def get_input_embeddings(self) -> Any:
        """The embedding."""

    def get_output_embeddings(self) -> Any:
        """The head."""

    def save_pretrained(self, save_directory: str | PathLike[str]) -> Any:
        """Write an ordinary model folder."""
