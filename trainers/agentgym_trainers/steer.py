"""STEER: weigh tokens by the entropy their update would take (2025, arXiv:2510.10150).

A token's effect on entropy is estimated as ``omega = |A r (1 - p)(ln p + H)|``, with p and H of the
policy as it is now. The token with the least effect gets the weight ``high``, that with the most
``low``; the surrogate is multiplied by the weight, and the mean stays over all tokens.

Differs from the code: least and most are over the minibatch, not over whatever was split off to fit
into memory, so that a token's weight does not depend on how rows are packed; episodes count the
same however long they are. ``paper()`` weighs with ``exp(-k omega / max omega)``, where tokens that
the clip has stopped have no effect; k is chosen so that the least weight is ``low``, as the paper's
value is not known to us. ``released()`` has the range the code falls back to, and the mean over
tokens. The estimate is a ranking: for the token's own logit the first order has one more factor p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Select
from agentgym.batch.batch import Batch
from agentgym.losses.compose import Outputs, times_column
from agentgym.losses.surrogates import clipped_tokens, policy_gradient
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO

WEIGHT = "steer/weight"
"""Private column: what the token's surrogate is multiplied by."""


def effect(outputs: Outputs, batch: Batch) -> Float[Tensor, " P"]:
    """``omega``: size of the entropy change that a token's update causes; 0 off the mask."""
    p = outputs.logprob.exp().clamp(1e-8, 1 - 1e-8)
    tilt = p * (1 - p) * (p.log() + outputs.entropy)
    change = batch.advantage / batch.logprob.exp().clamp(min=1e-8) * tilt
    return change.abs().nan_to_num(0, 0, 0) * batch.mask


def linear(omega: Float[Tensor, " A"], low: float, high: float) -> Float[Tensor, " A"]:
    """From ``high`` at the least effect to ``low`` at the most; their mean if all are alike."""
    least, most = omega.min(), omega.max()
    if most == least:
        return torch.full_like(omega, (low + high) / 2)
    return high - (omega - least) * (high - low) / (most - least)


def decaying(omega: Float[Tensor, " A"], low: float, high: float) -> Float[Tensor, " A"]:
    """``exp(-k omega)``, with k so that the most effect, or 0.02, has the weight ``low``."""
    return (math.log(low) / omega.max().clamp(min=0.02) * omega).exp().clamp(low, 1)


def relative(omega: Float[Tensor, " A"], low: float, high: float) -> Float[Tensor, " A"]:
    """``exp(-k omega / max omega)``: from 1 without effect to ``low`` at the most."""
    return (math.log(low) * omega / omega.max().clamp(min=1e-12)).exp()


LAWS = {"linear": linear, "decaying": decaying, "relative": relative}


def weigh_by_effect(
    law: Literal["linear", "decaying", "relative"],
    low: float,
    high: float,
    clip: tuple[float, float] | None = None,
) -> Select:
    """Write the weights of a minibatch.

    Args:
        law: From effects to weights.
        low: Weight at the most effect.
        high: Weight at the least, where the law is linear; otherwise it is 1.
        clip: How far a ratio may fall and rise; beyond it, where the surrogate has no gradient,
            there is no effect. Unset: the clip is not looked at.
    """

    def apply(outputs: Outputs, batch: Batch, generator: torch.Generator) -> Batch:
        omega = effect(outputs, batch)
        if clip is not None:
            omega = omega * ~clipped_tokens(outputs, batch, *clip)
        weight = torch.zeros_like(batch.advantage)
        if batch.mask.any():
            weight[batch.mask] = LAWS[law](omega[batch.mask], low, high).to(weight)
        return batch.with_(**{WEIGHT: weight})

    return Select(apply, frozenset({WEIGHT}))


@dataclass(frozen=True, kw_only=True)
class STEER:
    """GRPO that weighs tokens by their effect on entropy."""

    about: ClassVar[About] = About(
        "2510.10150",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "clipped surrogate, less of it at tokens that move entropy",
    )

    base: GRPO = field(default_factory=lambda: GRPO(dual_clip=10.0))
    """Method that gives credit and loss."""
    weight_low: float = 0.8
    """Weight of the token with the most effect."""
    weight_high: float = 1.2
    """Weight of the token with the least effect, where the law is linear."""
    weight_form: Literal["linear", "decaying", "relative"] = "linear"
    """From effects to weights."""
    counted_tokens: Literal["all", "moving"] = "all"
    """Tokens that have an effect on entropy: all, or only those that the clip leaves a gradient."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        above(0, self, "weight_low")
        within(0, 1, self, "weight_low")
        at_least(1, self, "weight_high")

    @classmethod
    def paper(cls) -> STEER:
        """The paper's setting."""
        base = GRPO(dual_clip=10.0, loss_aggregation="token-mean")
        return cls(base=base, weight_form="relative", counted_tokens="moving")

    @classmethod
    def released(cls) -> STEER:
        """The authors' code."""
        return cls(
            base=GRPO(dual_clip=10.0, loss_aggregation="token-mean"),
            weight_low=0.95,
            weight_high=1.05,
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = self.base
        clip = {"all": None, "moving": (base.clip_ratio_low, base.clip_ratio_high)}[
            self.counted_tokens
        ]
        surrogate = policy_gradient(
            base.clip_ratio_low, base.clip_ratio_high, dual_clip=base.dual_clip
        )
        return base.compose(
            times_column(WEIGHT, surrogate),
            select=weigh_by_effect(self.weight_form, self.weight_low, self.weight_high, clip),
        )
