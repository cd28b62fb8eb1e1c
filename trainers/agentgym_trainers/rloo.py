"""RLOO: the other episodes of the task are the baseline (Ahmadian et al. 2024, arXiv:2402.14740).

Leaving an episode out of its own baseline keeps the gradient unbiased. Differs from the paper:
several minibatches under a clip instead of one plain policy-gradient step; episodes count the same
however long they are. ``paper()`` is the plain gradient of the whole episode's likelihood;
``released()`` is the common code, which clips and takes the mean over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Update
from agentgym.credit.advantages import leave_one_out
from agentgym.credit.transforms import chain, mean_over_episodes
from agentgym.credit.weights import mask_truncated, mean_over_tokens
from agentgym.losses.surrogates import policy_gradient, reinforce
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import at_least, within


@dataclass(frozen=True, kw_only=True)
class RLOO:
    """REINFORCE with a leave-one-out baseline."""

    about: ClassVar[About] = About(
        "2402.14740",
        "n episodes side by side",
        "return minus the mean of the task's other episodes",
        "clipped surrogate; the paper: plain gradient",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio: float = 0.2
    """Half-width of the trust region on the token ratio, where there is one."""
    surrogate: Literal["clipped", "plain"] = "clipped"
    """Clipped ratio, or the likelihood itself."""
    loss_aggregation: Literal["episode-mean", "token-mean"] = "episode-mean"
    """What counts the same in the loss."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 4
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio")

    @classmethod
    def paper(cls) -> RLOO:
        """The paper's setting."""
        return cls(surrogate="plain", loss_aggregation="token-mean", minibatches=1)

    @classmethod
    def released(cls) -> RLOO:
        """The common code."""
        return cls(loss_aggregation="token-mean")

    def build(self) -> Algorithm:
        """Compose it."""
        weights = {"episode-mean": mean_over_episodes, "token-mean": mean_over_tokens}
        plain = self.surrogate == "plain"
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                leave_one_out(),
                weights[self.loss_aggregation](),
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(
                Update(
                    loss=reinforce() if plain else policy_gradient(self.clip_ratio),
                    minibatches=self.minibatches,
                ),
            ),
        )
