"""A small model made from scratch: tokenizer and weights, as an ordinary Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.settings import ScratchSettings

DIALOGUE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template with one token per role, so that short conversations stay short."""

TEMPLATE = DIALOGUE.replace("in messages %}", "in messages if message.role != 'system' %}")
"""The same without system prompts, which such a model has not learned to read."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<action>", "</action>", "<think>", "</think>", "<tool_call>", "</tool_call>")
MIN_VOCABULARY = 256 + len(SPECIAL_TOKENS) + len(TAGS)
"""Tokens of the smallest vocabulary: bytes, special tokens and tags."""


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with a chat template.

    Decoding reverses encoding for every text in Unicode's normal form C.

    Args:
        texts: Training text.
        vocabulary: Largest number of tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    core = Tokenizer(models.BPE())
    # For a Qwen2 model every loader makes Qwen2's tokenizer, whatever class was saved: split and
    # normalise like it, or a text would have other tokens after the folder is loaded.
    qwen = Qwen2Tokenizer().backend_tokenizer
    core.normalizer = qwen.normalizer
    core.pre_tokenizer = qwen.pre_tokenizer
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    # Tags are single tokens but not special: the agent writes them as text.
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


def make_model(
    tokenizer: Tokenizer, shape: ScratchSettings, *, context: int, seed: int
) -> CausalLM:
    """A randomly initialised Qwen2-shaped causal language model.

    Args:
        tokenizer: Its vocabulary gives the size of the embedding.
        shape: Size of the model.
        context: Longest context, in tokens.
        seed: Seed of the weights; the global generator is left unchanged.
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


def save(model: CausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write both as one ordinary model folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
