"""GRPO: compare the episodes of one task with each other (Shao et al. 2024, arXiv:2402.03300).

The advantage of an episode is its return, centred and scaled over the episodes of the same task;
all its tokens share it; the objective is PPO's clipped surrogate.

Differs from the paper: an answer is an episode of many turns; no KL penalty to a reference; the
upper clip may be wider than the lower (DAPO's clip-higher); groups of equal returns are left out of
the mean instead of diluting it. ``GRPO.paper()`` has the penalty, also on groups of equal returns,
and one clip.

``GRPO.released()`` is the common code base of the agent papers (verl-agent): a win is worth 10;
every turn is a row, with the return of its episode, less 0.1 if it is malformed; statistics are
over rows, so a long failure has more weight than a short success; every token of the batch counts
the same; a KL penalty, an entropy bonus that no paper mentions, and a dual clip. Not reproduced:
rows that the code duplicates to fill a batch; means over micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Select, Update
from agentgym.credit.advantages import centre_over_tokens, group_advantage_over_turns
from agentgym.credit.reward_shaping import malformed_penalty, scale_rewards
from agentgym.credit.transforms import Transform, chain, group_advantage, mean_over_episodes
from agentgym.credit.weights import mask_truncated, mean_over_tokens, mean_over_turns
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
    """Episodes per task: G."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1: epsilon."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    scale_by_std: bool = True
    """Divide the advantage by the group's standard deviation."""
    unbiased_std: bool = False
    """Standard deviation over episodes with one degree of freedom less, as most code has it."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    minibatches: int = 2
    """Optimiser steps per training step."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat: beta."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, in units of |advantage|: c.

    Unset: none."""
    malformed_penalty: float = 0.0
    """Reward taken from a turn that holds no action. It lowers the return of the episode; with
    ``group_statistics: turns`` only the score of that turn."""
    reward_scale: float = 1.0
    """Factor on all rewards."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What is one sample in the mean and standard deviation of a group."""
    baseline_over: Literal["episodes", "tokens"] = "episodes"
    """Mean over which advantages of a task are 0. Choose tokens where the loss is a token mean."""
    loss_aggregation: Literal["episode-mean", "turn-mean", "token-mean"] = "episode-mean"
    """What counts the same in the loss."""
    tied_groups: Literal["drop", "keep"] = "drop"
    """Groups of equal returns: left out of an episode mean, or kept for regularisers to act on."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high", "entropy_coef", "kl_coef", "malformed_penalty")
        above(0, self, "reward_scale")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> GRPO:
        """The paper's setting."""
        return cls(clip_ratio_high=0.2, kl_coef=0.04, tied_groups="keep")

    @classmethod
    def released(cls) -> GRPO:
        """The agent papers' common code base."""
        return cls(
            clip_ratio_high=0.2,
            kl_coef=0.01,
            entropy_coef=0.001,
            dual_clip=3.0,
            malformed_penalty=0.1,
            reward_scale=10.0,
            group_statistics="turns",
            loss_aggregation="token-mean",
        )

    def shaping(self) -> Transform:
        """What happens to rewards first."""
        pieces = []
        if self.reward_scale != 1:
            pieces.append(scale_rewards(self.reward_scale))
        if self.malformed_penalty and self.group_statistics == "episodes":
            pieces.append(malformed_penalty(self.malformed_penalty))
        return chain(*pieces)

    def advantage(self) -> Transform:
        """The advantages of the group."""
        if self.group_statistics == "turns":
            found = group_advantage_over_turns(
                scale=self.scale_by_std, malformed_penalty=self.malformed_penalty
            )
        else:
            found = group_advantage(scale=self.scale_by_std, unbiased=self.unbiased_std)
        return chain(found, centre_over_tokens()) if self.baseline_over == "tokens" else found

    def weighting(self) -> Transform:
        """How much each token counts, given the advantages."""
        weights = {
            "episode-mean": mean_over_episodes(tied=self.tied_groups == "keep"),
            "turn-mean": mean_over_turns(),
            "token-mean": mean_over_tokens(),
        }
        return chain(weights[self.loss_aggregation], *mask_truncated(self.truncated_episodes))

    def credit(self) -> Transform:
        """Credit assignment."""
        return chain(self.shaping(), self.advantage(), self.weighting())

    def regularised(self, surrogate: Loss) -> Loss:
        """A surrogate with the entropy bonus and the KL penalty, where there are any."""
        bonus = (scale(self.entropy_coef, entropy_bonus()),) if self.entropy_coef else ()
        penalty = (scale(self.kl_coef, kl_to_reference()),) if self.kl_coef else ()
        return add(surrogate, *bonus, *penalty)

    def compose(
        self,
        surrogate: Loss,
        select: Select | None = None,
        credit: Transform | None = None,
        advantage: Transform | None = None,
    ) -> Algorithm:
        """The algorithm with another surrogate, with further credit, or with other advantages."""
        own = chain(self.shaping(), advantage or self.advantage(), self.weighting())
        return Algorithm(
            collect=independent(self.group_size),
            credit=own if credit is None else chain(own, credit),
            updates=(
                Update(
                    loss=self.regularised(surrogate),
                    minibatches=self.minibatches,
                    select=select,
                ),
            ),
            reference=self.kl_coef > 0,
        )

    def surrogate(self) -> Loss:
        """The clipped surrogate."""
        return policy_gradient(self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip)

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        return self.compose(self.surrogate())
