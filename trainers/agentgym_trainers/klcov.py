"""KL-Cov: hold back the tokens of the highest covariance (Cui et al. 2025, arXiv:2505.22617).

The surrogate ``-A r`` is not clipped. The share of tokens whose log-probability varies most with
their advantage pays ``coefficient * |log r|`` for every nat they move: the paper's penalty, an
absolute log-ratio and no divergence. On the policy that sampled them it has no gradient.

Differs from the paper's code: means and the choice are over the minibatch, not over whatever was
split off to fit into memory; episodes count the same however long they are. ``paper()`` has the
authors' share for a model of 7B and the mean over tokens; ``released()`` is the common code, with a
tenth of the share and of the coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Select
from agentgym.batch.batch import Batch
from agentgym.losses.compose import Loss, Outputs, add, scale, times_column
from agentgym.losses.surrogates import ratio
from agentgym.utils.bounds import at_least, within
from agentgym_trainers.clipcov import covariance
from agentgym_trainers.grpo import GRPO

HELD = "klcov/held"
"""Private column: 1 on tokens that pay for moving in this step, 0 on the others."""


def hold_covariant(share: float) -> Select:
    """Mark the ``share`` of all tokens with the highest covariance, at least one."""

    def apply(outputs: Outputs, batch: Batch, generator: torch.Generator) -> Batch:
        at = batch.mask.nonzero().squeeze(-1)
        count = min(max(int(share * len(at)), 1), len(at))
        highest = covariance(outputs, batch)[at].topk(count).indices
        held = torch.zeros_like(batch.advantage).index_fill(0, at[highest], 1.0)
        return batch.with_(**{HELD: held})

    return Select(apply, frozenset({HELD}))


def unclipped() -> Loss:
    """Minus the advantage times the ratio, whatever the ratio is."""
    return Loss(
        lambda outputs, batch, step: -ratio(outputs, batch) * batch.advantage, name="surrogate"
    )


def distance() -> Loss:
    """How far a token's log-probability has moved since before the update, in nats."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return (outputs.logprob - batch.logprob).abs()

    return Loss(apply, name="penalty")


@dataclass(frozen=True, kw_only=True)
class KLCov:
    """GRPO without a clip that holds back tokens of high covariance."""

    about: ClassVar[About] = About(
        "2505.22617",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "unclipped surrogate; tokens of the highest covariance pay for moving",
    )

    group_size: int = 8
    """Episodes per task."""
    kl_cov_ratio: float = 2e-3
    """Part of all tokens that pays."""
    kl_cov_coef: float = 1.0
    """What they pay, per nat."""
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
        within(0, 1, self, "kl_cov_ratio")
        at_least(0, self, "kl_cov_coef")

    @classmethod
    def paper(cls) -> KLCov:
        """The authors' setting."""
        return cls(loss_aggregation="token-mean")

    @classmethod
    def released(cls) -> KLCov:
        """The common code."""
        return cls(kl_cov_ratio=2e-4, kl_cov_coef=0.1, loss_aggregation="token-mean")

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        penalty = scale(self.kl_cov_coef, times_column(HELD, distance()))
        return base.compose(add(unclipped(), penalty), select=hold_covariant(self.kl_cov_ratio))
