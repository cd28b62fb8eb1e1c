"""GSPO: one ratio per sequence instead of one per token (Zheng et al. 2025, arXiv:2507.18071).

The ratio of a sequence is the geometric mean of its tokens' ratios; it is clipped as a whole, and
its gradient is spread evenly over the tokens (the paper's GSPO-token form, eq. 14).

Differs from the paper: a sequence is a *turn*. The mean over an episode of many turns hardly
leaves 1, whatever happens in a single turn; and the clip is ten times wider, as its small value
was tuned on long single answers. ``paper()`` takes all that was written in one context as the
sequence, with the paper's clip.

``released()`` is the agent papers' port (ARL-Arena, arXiv:2602.21534), where a row is a turn: every
turn counts the same in the loss, statistics are over turns, and the rewards, fines and regularisers
are those of ``GRPO.released()``; its docstring states what is not reproduced; no dual clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.batch.turns import turns_of
from agentgym.losses.compose import Loss, Outputs
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO


def of_turn(batch: Batch) -> Tensor:
    """Number of the turn of each position, all positions off the mask apart; (P,)."""
    turns = turns_of(batch)
    return turns.spread(torch.arange(len(turns.length), device=batch.mask.device) + 1, batch)


def of_row(batch: Batch) -> Tensor:
    """Number of the context of each position; (P,)."""
    return (batch.row + 1) * batch.mask


def sequence_ratio(low: float, high: float, *, turn: bool) -> Loss:
    """The clipped surrogate with the geometric mean of the ratios of a turn, or of a row."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        unit = of_turn(batch) if turn else of_row(batch)
        size = int(unit.max()) + 1
        move = (outputs.logprob - batch.logprob).detach() * batch.mask
        total = move.new_zeros(size).index_add(0, unit, move)
        count = move.new_zeros(size).index_add(0, unit, batch.mask.to(move))
        mean = (total / count.clamp(min=1))[unit].clamp(-20, 20)
        ratio = (mean + outputs.logprob - outputs.logprob.detach()).exp()
        clipped = ratio.clamp(1 - low, 1 + high)
        return -(ratio * batch.advantage).minimum(clipped * batch.advantage)

    return Loss(apply, name="surrogate")


@dataclass(frozen=True, kw_only=True)
class GSPO:
    """Group sequence policy optimisation."""

    about: ClassVar[About] = About(
        "2507.18071",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "surrogate with one clipped ratio per turn",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 3e-3
    """How far the ratio of a sequence may fall below 1."""
    clip_ratio_high: float = 4e-3
    """How far it may rise above 1."""
    ratio_per: Literal["turn", "row"] = "turn"
    """What has one ratio: a turn, or all that was written in one context."""
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
    """What is one sample in the mean and standard deviation of a group."""
    loss_aggregation: Literal["episode-mean", "turn-mean"] = "episode-mean"
    """What counts the same in the loss."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches")
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high", "entropy_coef", "kl_coef", "malformed_penalty")
        above(0, self, "reward_scale")

    @classmethod
    def paper(cls) -> GSPO:
        """The paper's setting."""
        return cls(clip_ratio_low=3e-4, clip_ratio_high=4e-4, ratio_per="row")

    @classmethod
    def released(cls) -> GSPO:
        """The agent papers' port."""
        return cls(
            entropy_coef=0.001,
            kl_coef=0.01,
            malformed_penalty=0.1,
            reward_scale=10.0,
            group_statistics="turns",
            loss_aggregation="turn-mean",
        )

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
        turn = self.ratio_per == "turn"
        return base.compose(sequence_ratio(self.clip_ratio_low, self.clip_ratio_high, turn=turn))
