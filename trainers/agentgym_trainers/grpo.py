"""GRPO: compare the episodes of one task with each other (Shao et al. 2024, arXiv:2402.03300).

The advantage of an episode is its return, centred and scaled over the episodes of the same task;
all its tokens share it; the objective is PPO's clipped surrogate.

Differs from the paper: an answer is an episode of many turns; no KL penalty to a reference; the
upper clip may be wider than the lower (DAPO's clip-higher); groups of equal returns are left out of
the mean instead of diluting it. ``GRPO.paper()`` has the penalty and one clip.

``GRPO.released()`` is the common code base of the agent papers: statistics count every turn, so a
long failure weighs more than a short success; every token of the batch counts the same; a KL
penalty, an entropy bonus that no paper mentions, a dual clip, and a fine on malformed turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Select, Update
from agentgym.credit.advantages import group_advantage_over_turns
from agentgym.credit.reward_shaping import malformed_penalty
from agentgym.credit.transforms import Transform, chain, group_advantage, mean_over_episodes
from agentgym.credit.weights import mask_truncated, mean_over_tokens
from agentgym.losses.compose import Loss, add, scale
from agentgym.losses.surrogates import entropy_bonus, kl_to_reference, policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, within


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Group-relative policy optimisation."""

    about: ClassVar[About] = About(
        "2402.03300",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "clipped surrogate",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    scale_by_std: bool = True
    """Divide the advantage by the group's standard deviation."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    minibatches: int = 2
    """Optimiser steps per training step."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    dual_clip: float | None = None
    """Bound on the loss of a bad token that became likelier, in advantages; unset: none."""
    malformed_penalty: float = 0.0
    """Reward taken from a turn that holds no action."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What counts once in the mean and standard deviation of a group."""
    loss_aggregation: Literal["episode-mean", "token-mean"] = "episode-mean"
    """What counts the same in the loss."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high", "entropy_coef", "kl_coef", "malformed_penalty")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> GRPO:
        """The paper's setting."""
        return cls(clip_ratio_high=0.2, kl_coef=0.04)

    @classmethod
    def released(cls) -> GRPO:
        """The agent papers' common code base."""
        return cls(
            clip_ratio_high=0.2,
            kl_coef=0.01,
            entropy_coef=0.001,
            dual_clip=3.0,
            malformed_penalty=0.1,
            group_statistics="turns",
            loss_aggregation="token-mean",
        )

    def credit(self) -> Transform:
        """Credit assignment."""
        shaping = (malformed_penalty(self.malformed_penalty),) if self.malformed_penalty else ()
        advantage = {"episodes": group_advantage, "turns": group_advantage_over_turns}
        return chain(
            *shaping, advantage[self.group_statistics](scale=self.scale_by_std), self.weighting()
        )

    def weighting(self) -> Transform:
        """How much each token counts, given the advantages."""
        weights = {"episode-mean": mean_over_episodes, "token-mean": mean_over_tokens}
        return chain(weights[self.loss_aggregation](), *mask_truncated(self.truncated_episodes))

    def regulariser(self) -> Loss:
        """Entropy bonus, and KL penalty where there is one."""
        bonus = scale(self.entropy_coef, entropy_bonus())
        return add(bonus, scale(self.kl_coef, kl_to_reference())) if self.kl_coef else bonus

    def compose(
        self, surrogate: Loss, select: Select | None = None, credit: Transform | None = None
    ) -> Algorithm:
        """The algorithm with a surrogate of the caller's, and with further credit."""
        return Algorithm(
            collect=independent(self.group_size),
            credit=self.credit() if credit is None else chain(self.credit(), credit),
            updates=(
                Update(
                    loss=add(surrogate, self.regulariser()),
                    minibatches=self.minibatches,
                    select=select,
                ),
            ),
            reference=self.kl_coef > 0,
        )

    def build(self) -> Algorithm:
        """Compose it."""
        return self.compose(
            policy_gradient(self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip)
        )
