"""How much each token counts: transforms that write the weight column, or one of their own.

The learner divides by the sum of the weights of a minibatch, so only their proportions matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from agentgym.batch.batch import Batch, token_mean
from agentgym.batch.turns import turns_of
from agentgym.credit.transforms import Transform, stateless

TOKENS = "weight/tokens"
"""Private column: every token of the batch counts the same."""
TURNS = "weight/turns"
"""Private column: every episode counts the same, and its turns, and their tokens."""

CONSTANT = "weight/constant"
"""Private column: the token mean over the sum divided by a constant, the same on all tokens."""


def mean_over_informative_tokens() -> Transform:
    """Every token that has an advantage counts the same: DAPO's token mean."""
    return stateless(
        lambda batch: batch.with_(weight=token_mean(batch.mask & (batch.advantage != 0)))
    )


def mean_over_tokens() -> Transform:
    """Every token counts the same, also where there is no advantage: the mean of most code."""
    return stateless(lambda batch: batch.with_(weight=token_mean(batch.mask)))


def divide_by_constant(longest: int, *, per_episode: bool = True) -> Transform:
    """Weights of the token mean, and the column ``CONSTANT`` that turns it into a constant sum.

    Dr.GRPO, Liu et al. 2025 (arXiv:2503.20783), section 3.2: the sum over tokens is divided by
    episodes times a constant, so that no length is favoured. A loss ``times(CONSTANT, loss)`` has
    that scale: tokens / (episodes * longest) beside the mean over tokens.

    Args:
        longest: The constant, in tokens.
        per_episode: Divide by the number of episodes too; common code does not.
    """

    def apply(batch: Batch) -> Batch:
        episodes = max(1, len(batch.group)) if per_episode else 1
        scale = float(batch.mask.sum()) / (episodes * longest)
        column = batch.mask.to(batch.advantage) * scale
        return batch.with_(weight=token_mean(batch.mask), **{CONSTANT: column})

    return stateless(apply, writes={CONSTANT})


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
    """Tokens of episodes that the world ended, not a limit."""
    return ~batch.truncated[batch.episode_of_token]


def mask_truncated(policy: Literal["zero", "mask", "bootstrap"]) -> tuple[Transform, ...]:
    """What weights need for episodes that a limit cut short: nothing, unless they are masked."""
    return (keep_only(finished),) if policy == "mask" else ()
