"""CISPO: clip the importance weight, never the token (MiniMax-M1 2025, arXiv:2506.13585).

The ratio becomes a clipped weight without gradient on the log-likelihood, so that no token ever
loses its gradient.

Differs from the paper: episodes count the same however long they are. ``paper()`` takes the mean
over all tokens and bounds the weight from above only; ``released()`` is the common code, which
bounds it on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.losses.compose import Loss, Outputs
from agentgym.losses.surrogates import ratio
from agentgym.utils.bounds import at_least, within
from agentgym_trainers.grpo import GRPO


def clipped_weight(low: float, high: float) -> Loss:
    """Minus the log-likelihood times the advantage times the clipped ratio as a constant."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        weight = ratio(outputs, batch).detach().clamp(1 - low, 1 + high)
        return -weight * batch.advantage * outputs.logprob

    return Loss(apply, name="surrogate")


@dataclass(frozen=True, kw_only=True)
class CISPO:
    """Clipped importance-sampling policy optimisation."""

    about: ClassVar[About] = About(
        "2506.13585",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "likelihood under a clipped weight",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 1.0
    """How far the weight may fall below 1; at 1 there is no lower bound."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
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
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high")

    @classmethod
    def paper(cls) -> CISPO:
        """The paper's setting."""
        return cls(loss_aggregation="token-mean")

    @classmethod
    def released(cls) -> CISPO:
        """The common code."""
        return cls(clip_ratio_low=0.2, clip_ratio_high=0.2, loss_aggregation="token-mean")

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        return base.compose(clipped_weight(self.clip_ratio_low, self.clip_ratio_high))
