"""Sampling of next tokens from logits: pure functions over rows of a batch.

Axes: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from agentgym.errors import ConfigError
from agentgym.types import Sampling


class Draw(NamedTuple):
    """One sampled token per row with its log-probability and entropy."""

    tokens: Tensor
    """[R] int64."""
    logprobs: Tensor
    """[R] float32, nats, under the distribution actually sampled from."""
    entropies: Tensor
    """[R] float32, nats, of that distribution."""


def uniforms(seed: int, count: int) -> list[float]:
    """The uniform numbers in [0, 1) from which a completion is sampled; entry i for token i.

    They depend only on the seed, so a completion does not depend on the rest of the batch. A
    shorter list is a prefix of a longer one.
    """
    drawn: list[float] = np.random.Generator(np.random.PCG64(seed)).random(count).tolist()
    return drawn


def distribution(logits: Tensor, params: Sequence[Sampling]) -> Tensor:
    """Log-probabilities after temperature, top-k and top-p, in this order.

    Top-p keeps the smallest set of most likely tokens whose probability (after top-k) reaches
    ``top_p``. Greedy rows (temperature 0) put everything on the first largest logit.

    Args:
        logits: [R, V], any floating dtype.
        params: R of them.

    Returns:
        [R, V] float32 in nats; ``-inf`` where a token cannot be drawn.
    """
    temperature = [row.temperature for row in params]
    scaled = logits.float()
    if any(value != 1.0 for value in temperature):
        # A greedy row is divided by 1: its logits are replaced below.
        divisor = torch.tensor([value or 1.0 for value in temperature], device=logits.device)
        scaled = scaled / divisor[:, None]
    logprobs = torch.log_softmax(scaled, -1)
    if any(row.top_k or row.top_p < 1.0 for row in params):
        logprobs = torch.log_softmax(logprobs.masked_fill(_cut(logprobs, params), -torch.inf), -1)
    if not all(temperature):
        greedy = torch.tensor([value == 0.0 for value in temperature], device=logits.device)
        best = torch.full_like(logprobs, -torch.inf)
        best.scatter_(-1, logits.argmax(-1, keepdim=True), 0.0)
        # NaN is kept, so that ``draw`` can detect it.
        logprobs = torch.where(greedy[:, None] & ~logprobs.isnan(), best, logprobs)
    return logprobs


def _cut(logprobs: Tensor, params: Sequence[Sampling]) -> Tensor:
    """[R, V] bool: tokens removed by top-k or top-p."""
    size, device = logprobs.shape[-1], logprobs.device
    top_k = torch.tensor([row.top_k or size for row in params], device=device)[:, None]
    top_p = torch.tensor([row.top_p for row in params], dtype=torch.float64, device=device)[:, None]
    # Stable: which of two equally likely tokens survives must not depend on the batch.
    ranked, order = logprobs.double().sort(dim=-1, descending=True, stable=True)
    cut = torch.arange(size, device=device) >= top_k
    mass = ranked.exp().masked_fill(cut, 0.0)
    before = mass.cumsum(-1) - mass
    # Rounding may make `before` reach the whole mass early; top_p = 1 must not remove a token.
    cut = cut | ((before >= top_p * mass.sum(-1, keepdim=True)) & (top_p < 1.0))
    return torch.empty_like(cut).scatter_(-1, order, cut)


def draw(logits: Tensor, params: Sequence[Sampling], uniform: Sequence[float]) -> Draw:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: [R, V].
        params: R of them.
        uniform: R numbers in [0, 1); row r takes the first token at which the cumulative
            probability exceeds ``uniform[r]``.

    Returns:
        Tokens, log-probabilities and entropies, each [R], on the device of the logits.

    Raises:
        ConfigError: Logits are not finite, as after training has diverged.
    """
    logprobs = distribution(logits, params)
    probs = logprobs.exp()
    # 64 bits: in 32, unlikely tokens of a large vocabulary would get probability 0.
    total = probs.cumsum(-1, dtype=torch.float64)
    if not total[:, -1].isfinite().all():
        raise ConfigError(
            "the model's logits are not finite, its weights have diverged: lower the learning "
            "rate and continue from an earlier checkpoint"
        )
    target = torch.tensor(uniform, dtype=torch.float64, device=logits.device) * total[:, -1]
    tokens = torch.searchsorted(total, target[:, None], right=True)
    # 0 * log 0 = 0 for removed tokens.
    least = torch.finfo(logprobs.dtype).min
    # 64 bits: the order of summation differs for a batch of one row.
    entropies = -(probs * logprobs.clamp(min=least)).sum(-1, dtype=torch.float64).float()
    picked = logprobs.gather(-1, tokens)[:, 0]
    return Draw(tokens[:, 0], picked, entropies.clamp(min=0.0))
