"""GRPO: compare the episodes of one task with each other (Shao et al. 2024, arXiv:2402.03300).

The advantage of an episode is its return, centred and scaled over the episodes of the same task;
all its tokens share it; the objective is PPO's clipped surrogate.

Differs from the paper: an answer is an episode of many turns; no KL penalty to a reference; the
upper clip may be wider than the lower (DAPO's clip-higher); groups of equal returns are left out of
the mean instead of diluting it.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentgym.algorithm import Algorithm, Update, independent
from agentgym.credit import chain, group_advantage, weigh_episodes
from agentgym.losses import add, entropy_bonus, policy_gradient, weigh


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """Group-relative policy optimisation."""

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

    def build(self) -> Algorithm:
        """Compose it."""
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(group_advantage(scale=self.scale), weigh_episodes()),
            updates=(
                Update(
                    loss=add(
                        policy_gradient(self.clip, self.clip_high),
                        weigh(self.entropy, entropy_bonus()),
                    ),
                    minibatches=self.minibatches,
                ),
            ),
        )
