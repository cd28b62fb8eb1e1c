"""Dr.GRPO: no division by deviation or length (Liu et al. 2025, arXiv:2503.20783).

Both divisions of GRPO bias it: the deviation favours tasks that are nearly always or nearly never
solved, the length favours long wrong answers. Here an advantage is a plain difference, and the
sum over tokens is divided by a constant.

Differs from the paper: the upper clip is wider than the lower; the divisor counts every token an
episode may write over all its turns. ``released()`` is the common code, which forgets to divide
by the number of episodes, so that the loss grows with the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Update
from agentgym.credit.transforms import chain, group_advantage
from agentgym.credit.weights import CONSTANT, divide_by_constant, mask_truncated
from agentgym.losses.compose import times_column
from agentgym.losses.surrogates import policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import at_least, within


@dataclass(frozen=True, kw_only=True)
class DrGRPO:
    """GRPO done right: no bias by difficulty or length."""

    about: ClassVar[About] = About(
        "2503.20783",
        "n episodes side by side",
        "return minus the mean of the task; token sum over a constant",
        "clipped surrogate",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    max_episode_tokens: int = 1600
    """The constant: most tokens an episode may write."""
    token_sum_per: Literal["episode", "batch"] = "episode"
    """The constant divides the token sum of each episode, before their mean, or of the batch."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 4
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "max_episode_tokens", "minibatches")
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high")

    @classmethod
    def paper(cls) -> DrGRPO:
        """The paper's setting: one clip."""
        return cls(clip_ratio_high=0.2)

    @classmethod
    def released(cls) -> DrGRPO:
        """The common code."""
        return cls(clip_ratio_high=0.2, token_sum_per="batch")

    def build(self) -> Algorithm:
        """Compose it."""
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                group_advantage(scale=False),
                divide_by_constant(
                    self.max_episode_tokens, per_episode=self.token_sum_per == "episode"
                ),
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(
                Update(
                    loss=times_column(
                        CONSTANT, policy_gradient(self.clip_ratio_low, self.clip_ratio_high)
                    ),
                    minibatches=self.minibatches,
                ),
            ),
        )
