"""REINFORCE++: one baseline for the whole batch (Hu et al. 2025, arXiv:2501.03262).

The advantage of a token is the reward from its turn on, whitened over all tokens of the batch; no
group is needed. The variant with a baseline subtracts the mean of the task's episodes first.

Differs from the paper: the KL penalty, where there is one, is a term of the loss and not of the
reward. ``released()`` takes the mean and the deviation as the paper does, with a KL penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.credit.advantages import returns_to_go, subtract_group_mean, whiten
from agentgym.credit.transforms import chain
from agentgym.credit.weights import mask_truncated, mean_over_tokens
from agentgym.losses.compose import add, scale
from agentgym.losses.surrogates import kl_to_reference, policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, within


@dataclass(frozen=True, kw_only=True)
class ReinforcePP:
    """REINFORCE with advantages whitened over the batch."""

    about: ClassVar[About] = About(
        "2501.03262",
        "n episodes side by side",
        "reward to come, whitened over the batch's tokens",
        "clipped surrogate",
    )

    group_size: int = 8
    """Episodes per task; one will do without a baseline."""
    baseline: Literal["none", "group"] = "none"
    """What is subtracted before whitening."""
    discount: float = 1.0
    """Of reward, per turn."""
    clip_ratio: float = 0.2
    """Half-width of the trust region on the token ratio."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2 if self.baseline == "group" else 1, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio")
        above(0, self, "discount")
        within(0, 1, self, "discount")
        at_least(0, self, "kl_coef")

    @classmethod
    def paper(cls) -> ReinforcePP:
        """The paper's setting."""
        return cls(kl_coef=0.01)

    @classmethod
    def released(cls) -> ReinforcePP:
        """The common code: as the paper."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        baseline = (subtract_group_mean(),) if self.baseline == "group" else ()
        surrogate = policy_gradient(self.clip_ratio)
        loss = add(surrogate, scale(self.kl_coef, kl_to_reference())) if self.kl_coef else surrogate
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                returns_to_go(self.discount),
                *baseline,
                whiten(),
                mean_over_tokens(),
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(Update(loss=loss, minibatches=self.minibatches),),
            reference=self.kl_coef > 0,
        )


@dataclass(frozen=True, kw_only=True)
class ReinforcePPBaseline(ReinforcePP):
    """The variant that subtracts the mean of the task's episodes before whitening."""

    about: ClassVar[About] = ReinforcePP.about._replace(
        credit="reward to come minus the task's mean, whitened over the batch's tokens"
    )

    baseline: Literal["none", "group"] = "group"
    """What is subtracted before whitening."""
