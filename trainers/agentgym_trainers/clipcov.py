"""Clip-Cov: spare the tokens that would take the most entropy (Cui et al. 2025, arXiv:2505.22617).

What drives entropy down is the covariance of a token's log-probability with its advantage. A few
tokens of high covariance, drawn at random, are left out of each optimiser step.

Differs from the paper's code: means are over the minibatch, not over whatever was split off to fit
into memory; episodes count the same however long they are. ``paper()`` takes the mean over tokens
and so wide a clip that covariance clipping replaces it; ``released()`` is the common code, with the
usual clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Select
from agentgym.batch.batch import Batch
from agentgym.losses.compose import Outputs, times_column
from agentgym.losses.surrogates import clipped_tokens, policy_gradient
from agentgym.utils.bounds import at_least, ordered, within
from agentgym_trainers.grpo import GRPO

KEPT = "clipcov/kept"
"""Private column: 0 on tokens left out of this step, 1 on the others."""


def covariance(outputs: Outputs, batch: Batch) -> Float[Tensor, " P"]:
    """Advantage times log-probability, each less its mean over the minibatch; 0 off the mask."""
    inside = batch.mask
    if not inside.any():
        return torch.zeros_like(batch.advantage)
    advantage = batch.advantage - batch.advantage[inside].mean()
    logprob = outputs.logprob - outputs.logprob[inside].mean()
    return advantage * logprob * inside


def spare_covariant(
    share: float, low: float, high: float, *, clip: float, clip_high: float
) -> Select:
    """Mark a random ``share`` of all tokens, among those with covariance in (low, high).

    Tokens that the clip has stopped already are not drawn. At least one is, where there is any.
    """

    def apply(outputs: Outputs, batch: Batch, generator: torch.Generator) -> Batch:
        score = covariance(outputs, batch)
        free = ~clipped_tokens(outputs, batch, clip, clip_high)
        found = (batch.mask & (score > low) & (score < high) & free).nonzero().squeeze(-1)
        count = min(max(int(share * int(batch.mask.sum())), 1), len(found))
        drawn = found[torch.randperm(len(found), generator=generator)[:count]]
        kept = batch.mask.to(batch.advantage).index_fill(0, drawn, 0.0)
        return batch.with_(**{KEPT: kept})

    return Select(apply, frozenset({KEPT}))


@dataclass(frozen=True, kw_only=True)
class ClipCov:
    """GRPO that spares tokens of high covariance."""

    about: ClassVar[About] = About(
        "2505.22617",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "clipped surrogate without some tokens of high covariance",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    clip_cov_ratio: float = 2e-4
    """Part of all tokens that is left out."""
    clip_cov_low: float = 1.0
    """Covariance above which a token may be drawn."""
    clip_cov_high: float = 5.0
    """Covariance below which it may be drawn."""
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
        within(0, 1, self, "clip_ratio_low", "clip_cov_ratio")
        at_least(0, self, "clip_ratio_high")
        ordered(self, "clip_cov_low", "clip_cov_high")

    @classmethod
    def paper(cls) -> ClipCov:
        """The authors' setting."""
        return cls(clip_ratio_low=1.0, clip_ratio_high=1.0, loss_aggregation="token-mean")

    @classmethod
    def released(cls) -> ClipCov:
        """The common code."""
        return cls(clip_ratio_high=0.2, loss_aggregation="token-mean")

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        return base.compose(
            times_column(KEPT, policy_gradient(self.clip_ratio_low, self.clip_ratio_high)),
            select=spare_covariant(
                self.clip_cov_ratio,
                self.clip_cov_low,
                self.clip_cov_high,
                clip=self.clip_ratio_low,
                clip_high=self.clip_ratio_high,
            ),
        )
