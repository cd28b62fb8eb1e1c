"""Importance ratios between the trainer's policy and the engine that sampled."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.turns import turns_of
from agentgym.credit.transforms import Transform, stateless

Unit = Literal["token", "turn", "episode"]
"""What a ratio is of."""


Beyond = Literal["truncate", "mask"]
"""What happens to a ratio that is out of bounds."""


def importance(
    batch: Batch,
    *,
    cap: float = 2.0,
    low: float = 0.0,
    per: Unit = "token",
    beyond: Beyond = "truncate",
) -> Float[Tensor, " P"]:
    """How much more likely the trainer finds what the engine sampled, within bounds; 0 off mask.

    Args:
        batch: With both columns.
        cap: Largest weight, so that one unlucky token cannot dominate a step.
        low: Least weight, where what is out of bounds is masked.
        per: The ratio is of a token, or the product over its turn or episode.
        beyond: A ratio above ``cap`` counts as ``cap``, and a small one as it is; or what lies
            above ``cap`` or below ``low`` counts nothing.

    Source:
        Truncated: the weight of V-trace, Espeholt et al. 2018 (arXiv:1802.01561), section 4.1,
        without the trace. Masked per token: IcePop, in Ling-1T 2025 (arXiv:2510.18855).
        Differs: also per turn and per episode; the product, not its geometric mean.
    """
    gap = (batch.logprob - batch.logprob_sampled) * batch.mask
    if per == "turn":
        turns = turns_of(batch)
        gap = turns.spread(turns.total(gap), batch)
    elif per == "episode":
        total = gap.new_zeros(len(batch.group)).index_add(0, batch.episode_of_token, gap)
        gap = total[batch.episode_of_token]
    ratio = gap.clamp(-20, 20).exp()
    if beyond == "truncate":
        return ratio.clamp(max=cap) * batch.mask
    return ratio * ((ratio >= low) & (ratio <= cap) & batch.mask)


def correct_sampling(
    *, cap: float = 2.0, low: float = 0.0, per: Unit = "token", beyond: Beyond = "truncate"
) -> Transform:
    """Multiply advantages by ``importance``: as if the trainer itself had sampled."""

    def apply(batch: Batch) -> Batch:
        weight = importance(batch, cap=cap, low=low, per=per, beyond=beyond)
        return batch.with_(advantage=batch.advantage * weight)

    return stateless(apply)
