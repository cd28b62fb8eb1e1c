"""A small model from nothing: tokenizer and weights, saved as an ordinary Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentgym.settings import ScratchSettings

DIALOGUE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""One token per role, so that a turn of a short conversation is mostly conversation."""

TEMPLATE = DIALOGUE.replace("in messages %}", "in messages if message.role != 'system' %}")
"""The same without system prompts, which a model that has seen nothing else could not read."""

MARKS = ("<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<action>", "</action>", "<think>", "</think>", "<tool_call>", "</tool_call>")
SMALLEST = 256 + len(MARKS) + len(TAGS)
"""Tokens of the smallest vocabulary: bytes, marks and tags."""


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with a chat template.

    Every text in Unicode's normal form C round-trips.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    core = Tokenizer(models.BPE())
    # Beside a Qwen2 model every loader makes Qwen2's tokenizer, whatever class was saved: split and
    # normalise as it does, or the same text has other tokens after the folder is loaded.
    qwen = Qwen2Tokenizer().backend_tokenizer
    core.normalizer = qwen.normalizer
    core.pre_tokenizer = qwen.pre_tokenizer
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # Tags are single tokens but not special: they are part of the text that the agent writes.
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: Any, shape: ScratchSettings, *, context: int, seed: int) -> Any:
    """A randomly initialised Qwen2-shaped causal language model.

    Args:
        tokenizer: Says how many tokens there are, and which end and pad a text.
        shape: Its size.
        context: Longest context it is meant for, in tokens.
        seed: Of the weights; the global generator is left as it was.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write both as one ordinary model folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
