"""What is done without an engine that remembers, for the benchmarks to compare with."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def answers(
    model: Any, contexts: list[list[int]], *, padding: int = 0, **how: Any
) -> list[list[int]]:
    """The next tokens of each context by ``generate``, which reads all of them again, padded.

    Args:
        model: A Hugging Face causal language model.
        contexts: Token ids, of any lengths.
        padding: Id that fills rows up, on the left of contexts and after ends.
        **how: Further arguments of ``generate``.
    """
    width = max(map(len, contexts))
    rows = torch.tensor([[padding] * (width - len(c)) + c for c in contexts])
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts])
    rows, mask = rows.to(model.device), mask.to(model.device)
    generated = model.generate(
        rows, attention_mask=mask, do_sample=True, pad_token_id=padding, **how
    )
    new: list[list[int]] = generated[:, width:].tolist()
    return new
