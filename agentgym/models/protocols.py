"""What this package needs of a model and of a tokenizer: parts of transformers' interface.

The classes of transformers satisfy both protocols, and any object with these members can stand in,
such as a wrapped model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens and back, with the chat template of a model."""

    chat_template: Any
    """Jinja source of the template, or several by name; None: there is none."""

    @property
    def eos_token(self) -> Any:
        """Text of the token that ends a text."""

    @property
    def eos_token_id(self) -> Any:
        """Id of the token that ends a text."""

    @property
    def pad_token_id(self) -> Any:
        """Id of the token that fills rows to a common length."""

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of the special tokens."""

    def __len__(self) -> int:
        """Number of tokens, with those added later."""

    def encode(self, text: Any, *, add_special_tokens: bool = True) -> Any:
        """Token ids of a text."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> Any:
        """Text of token ids."""

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Ids of tokens given by their texts."""

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Texts of tokens given by their ids."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation in the format of the model's template."""

    def save_pretrained(self, save_directory: str | PathLike[str]) -> Any:
        """Write the tokenizer's files into a folder."""


@runtime_checkable
class CausalLM(Protocol):
    """A causal language model as transformers defines one."""

    config: Any
    """Kind and sizes of the model."""

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Logits of a batch of token ids, among other outputs."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights."""

    def modules(self) -> Iterator[nn.Module]:
        """All submodules, itself first."""

    def state_dict(self) -> dict[str, Any]:
        """All weights and buffers by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Replace weights and buffers."""

    def to(self, *args: Any, **options: Any) -> Any:
        """The model on another device or with another kind of number."""

    def get_decoder(self) -> Any:
        """The trunk, without the head."""

    def get_input_embeddings(self) -> Any:
        """The embedding."""

    def get_output_embeddings(self) -> Any:
        """The head."""

    def save_pretrained(self, save_directory: str | PathLike[str]) -> Any:
        """Write an ordinary model folder."""
