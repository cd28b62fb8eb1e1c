"""Models made from scratch, for the benchmarks."""

from __future__ import annotations

from typing import Any, Literal

import torch

from agentgym.models import from_scratch
from agentgym.settings import ScratchSettings

Size = Literal["small", "medium", "default", "large"]
"""3 million parameters; 24; those of the default model; half a billion, with 151,936 words."""
SHAPES = {
    "small": ScratchSettings(
        hidden_size=256, num_layers=4, num_heads=4, num_kv_heads=2, intermediate_size=768
    ),
    "medium": ScratchSettings(
        hidden_size=512, num_layers=8, num_heads=8, num_kv_heads=2, intermediate_size=1536
    ),
    "default": ScratchSettings(),
    "large": ScratchSettings(
        hidden_size=896, num_layers=24, num_heads=14, num_kv_heads=2, intermediate_size=4864
    ),
}
WORDS = 151936
"""Of the large one."""


def made(size: Size, *, context: int) -> tuple[Any, Any]:
    """A tokenizer, and a model, on a GPU if there is one, where the large one is in bfloat16."""
    texts = ["Higher. Lower. I hide a number from 1 to 100. Guess. Find the number. Found."] * 20
    tokenizer = from_scratch.make_tokenizer([*texts, *map(str, range(101))], 2000)
    model = from_scratch.make_model(tokenizer, SHAPES[size], context=context, seed=0)
    if size == "large":
        model.resize_token_embeddings(WORDS, mean_resizing=False)  # type: ignore[attr-defined]
    if torch.cuda.is_available():
        model.to("cuda", torch.bfloat16 if size == "large" else torch.float32)
    return tokenizer, model
