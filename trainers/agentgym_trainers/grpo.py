"""GRPO: compare the episodes of one task with each other (Shao et al. 2024, arXiv:2402.03300).

The advantage of an episode is its return, centred and scaled over the episodes of the same task;
all its tokens share it; the objective is PPO's clipped surrogate.

Differs from the paper: an answer is an episode of many turns; no KL penalty to a reference; the
upper clip may be wider than the lower (DAPO's clip-higher); groups of equal returns are left out of
the mean instead of diluting it. ``GRPO.paper()`` has the penalty and one clip.

``GRPO.released()`` is the common code base of the agent papers: statistics count every turn, so a
long failure weighs more than a short success; every token of the batch counts the same; a KL
penalty, an entropy bonus nobody mentions, a dual clip, and a fine on malformed turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Select, Update
from agentgym.credit.advantages import group_advantage_over_turns
from agentgym.credit.reward_shaping import punish_malformed
from agentgym.credit.transforms import Transform, chain, group_advantage, weigh_episodes
from agentgym.credit.weights import leave_out_truncated, weigh_every_token
from agentgym.losses.compose import Loss, add, weigh
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
    clip: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_high: float = 0.28
    """How far it may rise above 1."""
    scale: bool = True
    """Divide the advantage by the group's standard deviation."""
    entropy: float = 0.0
    """Weight of an entropy bonus, per nat."""
    minibatches: int = 2
    """Optimiser steps per training step."""
    kl: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    dual: float | None = None
    """Bound on the loss of a bad token that became likelier, in advantages; unset: none."""
    malformed: float = 0.0
    """Reward taken from a turn that holds no action."""
    statistics: Literal["episodes", "turns"] = "episodes"
    """What counts once in the mean and standard deviation of a group."""
    mean: Literal["episodes", "tokens"] = "episodes"
    """What counts the same in the loss."""
    truncated: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip")
        at_least(0, self, "clip_high", "entropy", "kl", "malformed")
        above(1, self, "dual")

    @classmethod
    def paper(cls) -> GRPO:
        """The paper's setting."""
        return cls(clip_high=0.2, kl=0.04)

    @classmethod
    def released(cls) -> GRPO:
        """The agent papers' common code base."""
        return cls(
            clip_high=0.2,
            kl=0.01,
            entropy=0.001,
            dual=3.0,
            malformed=0.1,
            statistics="turns",
            mean="tokens",
        )

    def credit(self) -> Transform:
        """Who gets the credit."""
        shaping = (punish_malformed(self.malformed),) if self.malformed else ()
        advantage = {"episodes": group_advantage, "turns": group_advantage_over_turns}
        return chain(*shaping, advantage[self.statistics](scale=self.scale), self.weighting())

    def weighting(self) -> Transform:
        """How much each token counts, given the advantages."""
        weights = {"episodes": weigh_episodes, "tokens": weigh_every_token}
        return chain(weights[self.mean](), *leave_out_truncated(self.truncated))

    def regulariser(self) -> Loss:
        """Entropy bonus, and KL penalty where there is one."""
        bonus = weigh(self.entropy, entropy_bonus())
        return add(bonus, weigh(self.kl, kl_to_reference())) if self.kl else bonus

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
            reference=self.kl > 0,
        )

    def build(self) -> Algorithm:
        """Compose it."""
        return self.compose(policy_gradient(self.clip, self.clip_high, dual=self.dual))
