"""PEAR: pay for certainty while thinking, not while answering (2025, arXiv:2510.08026).

With the mean entropies of the thought tokens and of the others, before the update, an episode that
was won loses ``P = max(0, H_thought - alpha H_action)`` of its reward; a lost one loses nothing, so
that a lost episode never depends on entropy.

Differs from the paper: an episode has many thoughts and actions, so both means are over all its
turns; a turn without a thought is action through and through; P is cut to ``most``, so that a win
stays worth more than a loss; the mark that ends a thought belongs to it; the upper clip is wider
and there is no KL penalty. ``paper()`` has one clip, the penalty, no cut, and takes an episode
without any mark for thought. The code was not seen; ``released()`` follows its README, which
agrees.

It lowers the entropy of thoughts: beside a method that holds entropy at a target they pull apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.credit.reward_shaping import add_episode_reward
from agentgym.credit.transforms import Transform, mean_of_episode, stateless
from agentgym.utils.bounds import above, finite
from agentgym_trainers.grpo import GRPO


def unsettled(batch: Batch, alpha: float, *, silent_is_thought: bool) -> Float[Tensor, " E"]:
    """``max(0, H_thought - alpha H_action)`` of each episode, in nats.

    Args:
        batch: With entropies.
        alpha: How much uncertain actions excuse uncertain thoughts.
        silent_is_thought: An episode without a thought is one; otherwise it is all action.
    """
    thought = batch.thought
    if silent_is_thought:
        silent = mean_of_episode(thought.to(batch.entropy), batch) == 0
        thought = thought | silent[batch.episode_of_token]
    of_thought = mean_of_episode(batch.entropy, batch, thought)
    of_action = mean_of_episode(batch.entropy, batch, ~thought)
    return (of_thought - alpha * of_action).clamp(min=0)


def charge_thoughts(alpha: float, most: float | None, *, silent_is_thought: bool) -> Transform:
    """Take ``unsettled``, at most ``most``, from the reward of every episode that was won."""

    def apply(batch: Batch) -> Batch:
        charge = unsettled(batch, alpha, silent_is_thought=silent_is_thought)
        charge = charge if most is None else charge.clamp(max=most)
        zero = torch.zeros_like(batch.reward)
        return add_episode_reward(batch, torch.where(batch.won, -charge.to(zero), zero))

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class PEAR:
    """Phase-entropy-aware reward, on GRPO."""

    about: ClassVar[About] = About(
        "2510.08026",
        "its base's",
        "its base's, of a return less the uncertainty of the thoughts that led to a win",
        "its base's",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives credit and loss."""
    alpha: float = 1.0
    """How much uncertain actions excuse uncertain thoughts."""
    max_penalty: float | None = 0.9
    """Most that a win can lose, in units of reward; unset: no bound."""
    without_thought: Literal["action", "thought"] = "action"
    """What an episode without any thought is."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        above(0, self, "max_penalty")
        finite(self, "alpha")

    @classmethod
    def paper(cls) -> PEAR:
        """The paper's setting."""
        return cls(base=GRPO.paper(), max_penalty=None, without_thought="thought")

    @classmethod
    def released(cls) -> PEAR:
        """The authors' code, as its README describes it."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        charge = charge_thoughts(
            self.alpha, self.max_penalty, silent_is_thought=self.without_thought == "thought"
        )
        return extend(self.base.build(run), reward=charge)
