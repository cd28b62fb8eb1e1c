"""SAPO: a soft gate in place of the clip (Gao et al. 2025, arXiv:2511.20347).

The ratio passes through a sigmoid around 1, so that the gradient fades smoothly as a token moves
away; it fades faster where the advantage is negative.

Differs from the paper: episodes count the same however long they are; ``paper()`` and
``released()`` take the mean over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.losses.compose import Loss, Outputs
from agentgym.losses.surrogates import ratio
from agentgym.utils.bounds import above, at_least
from agentgym_trainers.grpo import GRPO


def soft_gate(gain: float, loss: float) -> Loss:
    """Minus the advantage times ``4 / t * sigmoid(t * (ratio - 1))``.

    At ratio 1 the slope is that of the plain policy gradient.

    Args:
        gain: Temperature t where the advantage is positive, above 0.
        loss: The same where it is negative.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        sharpness = torch.where(batch.advantage > 0, gain, loss)
        gate = 4 / sharpness * (sharpness * (ratio(outputs, batch) - 1)).sigmoid()
        return -gate * batch.advantage

    return Loss(apply, name="surrogate")


@dataclass(frozen=True, kw_only=True)
class SAPO:
    """Soft adaptive policy optimisation."""

    about: ClassVar[About] = About(
        "2511.20347",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "surrogate through a sigmoid gate",
    )

    group_size: int = 8
    """Episodes per task."""
    tau_positive: float = 1.0
    """How fast the gradient fades where the advantage is positive."""
    tau_negative: float = 1.05
    """How fast it fades where the advantage is negative."""
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
        above(0, self, "tau_positive", "tau_negative")

    @classmethod
    def paper(cls) -> SAPO:
        """The paper's setting."""
        return cls(loss_aggregation="token-mean")

    @classmethod
    def released(cls) -> SAPO:
        """The common code: as the paper."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        return base.compose(soft_gate(self.tau_positive, self.tau_negative))
