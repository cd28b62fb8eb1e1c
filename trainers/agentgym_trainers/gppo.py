"""GPPO: clipped tokens keep a bounded gradient (Klear-Reasoner 2025, arXiv:2508.07629).

The value is that of the clipped surrogate; where its gradient would stop, a token keeps the one it
has at the clip.

Differs from the paper: episodes count the same however long they are. ``paper()`` takes the mean
over all tokens; ``released()`` adds the dual clip of the common code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.losses.surrogates import policy_gradient_kept
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO


@dataclass(frozen=True, kw_only=True)
class GPPO:
    """Gradient-preserving clipping policy optimisation."""

    about: ClassVar[About] = About(
        "2508.07629",
        "n episodes side by side",
        "return, centred and scaled within the task",
        "surrogate whose clipped tokens keep a gradient, on both sides",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
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
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> GPPO:
        """The paper's setting."""
        return cls(loss_aggregation="token-mean")

    @classmethod
    def released(cls) -> GPPO:
        """The common code."""
        return cls(loss_aggregation="token-mean", dual_clip=3.0)

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            minibatches=self.minibatches,
            loss_aggregation=self.loss_aggregation,
            truncated_episodes=self.truncated_episodes,
        )
        return base.compose(
            policy_gradient_kept(
                self.clip_ratio_low, self.clip_ratio_high, below=True, dual_clip=self.dual_clip
            )
        )
