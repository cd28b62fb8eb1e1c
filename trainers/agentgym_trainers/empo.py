"""EMPO: reward agreement, without knowing what is right (Zhang et al. 2025, arXiv:2504.05812).

The reward of an episode is the share of its task's episodes that ended as it did, so that on
average a group earns ``sum p^2`` and agreement is what is learned. Tasks count only while the
entropy of their endings is above ``low`` and below ``high`` nats.

Differs from the paper: an answer is the ending of an episode, its last action and the answer of the
environment; episodes that a limit cut short agree with no other and earn 0, but count in the group;
the bounds, which the paper does not give, let all through but unanimity and complete
disagreement, which teach nothing. ``released()`` has no bounds.

Where the environment has rewards, agreement is at most an addition (``env_reward_weight`` weighs
them): agents soon agree to do nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.credit.reward_shaping import add_episode_reward
from agentgym.credit.transforms import Transform, stateless
from agentgym.utils.bounds import at_least
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.gspo import GSPO


def agreement(batch: Batch) -> Float[Tensor, " E"]:
    """Share of its task's episodes that ended as each did; 0 where a limit cut it short."""
    key = torch.stack([batch.group, batch.ending_hash, batch.truncated.long()])
    cluster = torch.unique(key, dim=1, return_inverse=True)[1]
    same = torch.bincount(cluster)[cluster].to(batch.reward)
    size = torch.bincount(batch.group)[batch.group]
    return torch.where(batch.truncated, torch.zeros_like(same), same / size)


def disagreement(batch: Batch) -> Float[Tensor, " E"]:
    """Entropy of how each task's episodes ended, in nats, over those that ended by themselves."""
    ended = (~batch.truncated).to(batch.reward)
    size = int(batch.group.max()) + 1 if len(batch.group) else 0
    zeros = batch.reward.new_zeros(size)
    count = zeros.index_add(0, batch.group, ended)[batch.group]
    total = torch.bincount(batch.group)[batch.group]
    share = agreement(batch) * total / count.clamp(min=1)
    surprise = torch.where(batch.truncated, torch.zeros_like(share), -share.clamp(min=1e-12).log())
    return zeros.index_add(0, batch.group, surprise)[batch.group] / count.clamp(min=1)


def reward_agreement(low: float, high: float | None, *, world: float = 0.0) -> Transform:
    """Replace the reward by ``agreement``, which is 0 where endings agree too much or too little.

    Args:
        low: Entropy of the endings that a task must exceed, in nats.
        high: Entropy it must stay below; unset: that of a group in which no two agree.
        world: Weight of the environment's own reward, added to it.
    """

    def apply(batch: Batch) -> Batch:
        entropy = disagreement(batch)
        size = torch.bincount(batch.group)[batch.group].to(entropy)
        most = size.log() if high is None else torch.full_like(entropy, high)
        counts = (entropy > low + 1e-6) & (entropy < most - 1e-6)
        wanted = world * batch.reward + agreement(batch) * counts
        return add_episode_reward(batch, wanted - batch.reward)

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class EMPO:
    """Entropy-minimised policy optimisation: no ground truth, only agreement."""

    about: ClassVar[About] = About(
        "2504.05812",
        "its base's",
        "its base's, of the share of the task's episodes that ended the same way",
        "its base's",
    )

    base: GSPO | GRPO = field(default_factory=GSPO)
    """Method that gives credit and loss."""
    entropy_low: float = 0.0
    """Entropy of endings that a task must exceed, in nats; -1 lets unanimity through."""
    entropy_high: float | None = None
    """Entropy it must stay below, in nats; unset: that of a group in which no two agree."""
    env_reward_weight: float = 0.0
    """Weight of the environment's own reward beside agreement."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(-1, self, "entropy_low")
        at_least(0, self, "entropy_high", "env_reward_weight")

    @classmethod
    def paper(cls) -> EMPO:
        """The paper's setting."""
        return cls(
            base=GSPO(group_size=16, clip_ratio_low=3e-4, clip_ratio_high=4e-4, ratio_per="row")
        )

    @classmethod
    def released(cls) -> EMPO:
        """The authors' code."""
        return cls(base=cls.paper().base, entropy_low=-1.0, entropy_high=math.log(1e6))

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        return extend(
            self.base.build(run),
            reward=reward_agreement(
                self.entropy_low, self.entropy_high, world=self.env_reward_weight
            ),
        )
