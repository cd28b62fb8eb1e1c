"""How much each token counts: transforms that write the weight column, or one of their own.

The learner divides by the sum of the weights of a minibatch, so only their proportions matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import Batch, token_mean
from agentgym.batch.turns import turns_of
from agentgym.credit.transforms import Transform, stateless

TOKENS = "weight/tokens"
"""Private column: every token of the batch counts the same."""
TURNS = "weight/turns"
"""Private column: every episode counts the same, and its turns, and their tokens."""


def mean_over_informative_tokens() -> Transform:
    """Every token that has an advantage counts the same: DAPO's token mean."""
    return stateless(
        lambda batch: batch.with_(weight=token_mean(batch.mask & (batch.advantage != 0)))
    )


def mean_over_tokens() -> Transform:
    """Every token counts the same, also where there is no advantage: the mean of most code."""
    return stateless(lambda batch: batch.with_(weight=token_mean(batch.mask)))


def turn_mean(batch: Batch) -> Float[Tensor, " P"]:
    """Weights under which every turn of the batch counts the same, and so do its tokens."""
    turns = turns_of(batch)
    share = turns.spread(1.0 / turns.length.to(batch.weight), batch)
    return share / max(1, len(turns.length))


def mean_over_turns() -> Transform:
    """Every turn counts the same, as in code that has one row per turn and takes the row mean."""
    return stateless(lambda batch: batch.with_(weight=turn_mean(batch)))


def side_weights(name: str) -> Transform:
    """Write the column ``TOKENS`` or ``TURNS``, for terms with a weighting of their own."""

    def apply(batch: Batch) -> Batch:
        if name == TOKENS:
            return batch.with_(**{name: token_mean(batch.mask)})
        turns = turns_of(batch)
        count = turns.per_episode(torch.ones_like(turns.length, dtype=torch.float), batch)
        share = turns.spread(1.0 / (turns.length * count[turns.episode]), batch)
        return batch.with_(**{name: share / share.sum().clamp(min=1e-12)})

    return stateless(apply, writes={name})


def mask_gains(where: Callable[[Batch], Bool[Tensor, " P"]]) -> Transform:
    """Take the weight from tokens that would be rewarded; a loss there still teaches.

    Masking both signs would make such tokens free where an episode fails, and so a way out.
    """
    return keep_only(lambda batch: ~(where(batch) & (batch.advantage > 0)))


def keep_only(where: Callable[[Batch], Bool[Tensor, " P"]]) -> Transform:
    """Take the weight from all other tokens; what they did still counts in the statistics."""

    def apply(batch: Batch) -> Batch:
        kept = where(batch)
        if bool((kept | ~batch.mask).all()):
            return batch
        weight = batch.weight * kept
        return batch.with_(weight=weight / weight.sum().clamp(min=1e-12))

    return stateless(apply)


def finished(batch: Batch) -> Bool[Tensor, " P"]:
    """Tokens of episodes that the environment ended, not a limit."""
    return ~batch.truncated[batch.episode_of_token]


def mask_truncated(policy: Literal["zero", "mask", "bootstrap"]) -> tuple[Transform, ...]:
    """What weights need for episodes that a limit cut short: nothing, unless they are masked."""
    return (keep_only(finished),) if policy == "mask" else ()
