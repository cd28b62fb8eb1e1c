"""RLOO: the other episodes of the task are the baseline (Ahmadian et al. 2024, arXiv:2402.14740).

Leaving an episode out of its own baseline keeps the gradient unbiased. Differs from the paper:
several minibatches under a clip instead of one plain policy-gradient step; episodes count the same
however long they are. ``paper()`` is the plain gradient of the whole episode's likelihood.

``released()`` is the agent papers' common code base (verl-agent): it clips, takes the mean over all
tokens, leaves one *turn* out where the paper leaves out an episode, and has the rewards, fines and
regularisers of ``GRPO.released()``; its docstring states what is not reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.credit.advantages import leave_one_out, leave_one_out_over_turns
from agentgym.credit.transforms import Transform
from agentgym.losses.surrogates import policy_gradient, reinforce
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO


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
    """Episodes per task: k."""
    clip_ratio: float = 0.2
    """Half-width of the trust region on the token ratio, where there is one."""
    surrogate: Literal["clipped", "plain"] = "clipped"
    """Clipped ratio, or the likelihood itself."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    malformed_penalty: float = 0.0
    """Reward taken from a turn that holds no action; with ``group_statistics: turns`` only from
    the score of that turn, else from the return."""
    reward_scale: float = 1.0
    """Factor on all rewards."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What is one sample in the baseline."""
    loss_aggregation: Literal["episode-mean", "token-mean"] = "episode-mean"
    """What counts the same in the loss."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio")
        at_least(0, self, "entropy_coef", "kl_coef", "malformed_penalty")
        above(0, self, "reward_scale")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> RLOO:
        """The paper's setting."""
        return cls(surrogate="plain", loss_aggregation="token-mean", minibatches=1)

    @classmethod
    def released(cls) -> RLOO:
        """The common code."""
        return cls(
            dual_clip=3.0,
            entropy_coef=0.001,
            kl_coef=0.01,
            malformed_penalty=0.1,
            reward_scale=10.0,
            group_statistics="turns",
            loss_aggregation="token-mean",
        )

    def advantage(self) -> Transform:
        """The advantages of the group."""
        if self.group_statistics == "turns":
            return leave_one_out_over_turns(malformed_penalty=self.malformed_penalty)
        return leave_one_out()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            entropy_coef=self.entropy_coef,
            kl_coef=self.kl_coef,
            malformed_penalty=self.malformed_penalty,
            reward_scale=self.reward_scale,
            group_statistics=self.group_statistics,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        clipped = policy_gradient(self.clip_ratio, dual_clip=self.dual_clip)
        loss = reinforce() if self.surrogate == "plain" else clipped
        return base.compose(loss, advantage=self.advantage())
