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
from agentgym.credit.weights import CONSTANT, divide_by_constant, leave_out_truncated
from agentgym.losses.compose import times
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
    clip: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_high: float = 0.28
    """How far it may rise above 1."""
    longest: int = 1600
    """The constant: most tokens an episode may write."""
    divided: Literal["episode", "batch"] = "episode"
    """Whose sum over tokens the constant divides: an episode's, before their mean, or all of it."""
    truncated: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 4
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "longest", "minibatches")
        within(0, 1, self, "clip")
        at_least(0, self, "clip_high")

    @classmethod
    def paper(cls) -> DrGRPO:
        """The paper's setting: one clip."""
        return cls(clip_high=0.2)

    @classmethod
    def released(cls) -> DrGRPO:
        """The common code."""
        return cls(clip_high=0.2, divided="batch")

    def build(self) -> Algorithm:
        """Compose it."""
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                group_advantage(scale=False),
                divide_by_constant(self.longest, per_episode=self.divided == "episode"),
                *leave_out_truncated(self.truncated),
            ),
            updates=(
                Update(
                    loss=times(CONSTANT, policy_gradient(self.clip, self.clip_high)),
                    minibatches=self.minibatches,
                ),
            ),
        )
