"""Dr.GRPO: no division by deviation or length (Liu et al. 2025, arXiv:2503.20783).

Both divisions of GRPO bias it: the deviation favours tasks that are nearly always or nearly never
solved, the length favours long wrong answers. Here an advantage is a plain difference, and the
sum over tokens is divided by a constant.

Differs from the paper: the upper clip is wider than the lower; the divisor is what an episode may
write over all its turns. The bound on the gradient is in units of this loss beside a token mean.
``released()`` is the common code: it divides by the longest row, which is a turn, and not by the
number of episodes, so the loss grows with the batch; the bound on the gradient grows with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.credit.transforms import chain, group_advantage
from agentgym.credit.weights import mask_truncated, mean_over_tokens
from agentgym.losses.compose import token_sum
from agentgym.losses.surrogates import policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import at_least, within


def default_divisor(run: RunInfo, *, per_episode: bool) -> int:
    """What an episode may write in a run; in code that has one row per turn, what a row may."""
    return run.max_episode_tokens if per_episode else run.max_completion_tokens


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
    divisor_tokens: int | None = None
    """Constant that divides the token sum. Unset: what an episode may write in this run, or per
    batch its longest completion."""
    token_sum_per: Literal["episode", "batch"] = "episode"
    """The constant divides the token sum of each episode, before their mean, or of the batch."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "divisor_tokens", "minibatches")
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

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        surrogate = policy_gradient(self.clip_ratio_low, self.clip_ratio_high)
        per_episode = self.token_sum_per == "episode"
        constant = self.divisor_tokens or default_divisor(run, per_episode=per_episode)
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                group_advantage(scale=False),
                mean_over_tokens(),
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(
                Update(
                    loss=token_sum(surrogate, constant, per_episode=per_episode),
                    minibatches=self.minibatches,
                ),
            ),
        )
