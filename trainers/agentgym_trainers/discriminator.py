"""Clip_B and Clip_V: leave out tokens that would take entropy if punished (arXiv:2602.03392).

Raising the logit of a token by e changes entropy by ``-e S`` with ``S = p (H + ln p)``: punishing a
rare token (S far below the mean) takes entropy. Clip_B drops tokens of negative advantage whose S
is more than ``spread`` deviations below the mean. Clip_V compares S with its mean under the policy
itself, ``sum_i p_i^2 (H + ln p_i)``, which is no deviation from a batch's mean: it drops tokens
without a positive advantage where the difference exceeds ``spread`` deviations, and, where these
are more than ``most`` of all tokens, only the most different of those with a negative one.

What is dropped leaves the mean of the loss too (``denominator: shrink``), or is counted as 0 in it
(``keep_only``). p and H are the trainer's before the update, where the code has the engine's.

Differs from the paper's code: deviations are over all tokens of the batch; episodes count the same
however long they are. ``paper()`` and ``released()`` take the mean over tokens; the code's
constructor of Clip_V has a spread of 2, its configuration files 8.5. That only tokens of negative
advantage are dropped is the code's; by the theory rewarding common tokens takes entropy as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.credit.transforms import Transform, chain, stateless
from agentgym.credit.weights import keep_only
from agentgym.losses.compose import times_column
from agentgym.losses.reductions import expected_tilt
from agentgym.losses.surrogates import policy_gradient
from agentgym.utils.bounds import at_least, within
from agentgym_trainers.grpo import GRPO

KEPT = "discriminator/kept"
"""Private column: 0 on tokens that were dropped, 1 on the others."""
EXPECTED = "discriminator/expected"
"""Private column: mean of ``p (H + ln p)`` under the policy before the update."""

Where = Callable[[Batch], Bool[Tensor, " P"]]
"""Which tokens are kept."""


def tilt(batch: Batch) -> Float[Tensor, " P"]:
    """``S = p (H + ln p)`` of each token: how much entropy a higher logit takes; 0 off the mask."""
    return batch.logprob.exp() * (batch.entropy + batch.logprob) * batch.mask


def above_the_batch(spread: float) -> Where:
    """Clip_B: all but punished tokens with S more than ``spread`` deviations below the mean."""

    def kept(batch: Batch) -> Tensor:
        score = tilt(batch)
        inside = score[batch.mask]
        if not len(inside):
            return batch.mask
        deviation = inside.std(correction=0)
        low = score - inside.mean() < -spread * deviation
        return batch.mask & ~(low & (batch.advantage < 0) & (deviation >= 1e-12))

    return kept


def near_the_policy(spread: float, most: float) -> Where:
    """Clip_V: all but tokens, not rewarded, with S far below its mean under the policy.

    Reads the column ``EXPECTED``.
    """

    def kept(batch: Batch) -> Tensor:
        difference = (batch.extra[EXPECTED] - tilt(batch)) * batch.mask
        inside = difference[batch.mask]
        if not len(inside):
            return batch.mask
        far = difference > spread * inside.std(correction=0)
        dropped = batch.mask & far & (batch.advantage <= 0)
        if int(dropped.sum()) > most * len(inside):
            punished = (batch.mask & (batch.advantage < 0)).nonzero().squeeze(-1)
            count = min(max(int(most * len(inside)), 1), len(punished))
            worst = punished[difference[punished].topk(count).indices]
            dropped = torch.zeros_like(batch.mask).index_fill(0, worst, True)
        return batch.mask & ~dropped

    return kept


def drop(where: Where, *, shrink: bool) -> Transform:
    """Write ``KEPT``; where the mean shrinks, take the weight of what was dropped as well."""

    def apply(batch: Batch) -> Batch:
        return batch.with_(**{KEPT: where(batch).to(batch.advantage)})

    mark = stateless(apply, writes={KEPT})
    return chain(mark, keep_only(lambda batch: batch.extra[KEPT] > 0)) if shrink else mark


def compose(base: GRPO, dropping: Transform) -> Algorithm:
    """The base without what is dropped."""
    surrogate = policy_gradient(base.clip_ratio_low, base.clip_ratio_high, dual_clip=base.dual_clip)
    return base.compose(times_column(KEPT, surrogate), credit=dropping)


@dataclass(frozen=True, kw_only=True)
class ClipB:
    """GRPO without tokens that are punished although they are rare, judged against the batch."""

    about: ClassVar[About] = About(
        "2602.03392",
        "n episodes side by side",
        "return, centred and scaled within the task; rare tokens are not punished",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives credit and loss."""
    mu: float = 2.5
    """How many standard deviations below the mean: mu."""
    denominator: Literal["shrink", "keep"] = "shrink"
    """Whether what is dropped leaves the mean too."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "mu")

    @classmethod
    def paper(cls) -> ClipB:
        """The paper's setting."""
        return cls(base=GRPO(group_size=16, clip_ratio_high=0.2, loss_aggregation="token-mean"))

    @classmethod
    def released(cls) -> ClipB:
        """The authors' code."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        return compose(
            self.base, drop(above_the_batch(self.mu), shrink=self.denominator == "shrink")
        )


@dataclass(frozen=True, kw_only=True)
class ClipV:
    """GRPO without tokens that are punished although they are rare, judged against the policy."""

    about: ClassVar[About] = About(
        "2602.03392",
        "n episodes side by side",
        "return, centred and scaled within the task; tokens rare for their place are not punished",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives credit and loss."""
    mu: float = 8.5
    """How many standard deviations of the difference: mu."""
    max_dropped_ratio: float = 1e-4
    """Part of all tokens that may be dropped; at least one token may."""
    denominator: Literal["shrink", "keep"] = "shrink"
    """Whether what is dropped leaves the mean too."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "mu")
        within(0, 1, self, "max_dropped_ratio")

    @classmethod
    def paper(cls) -> ClipV:
        """The paper's setting."""
        return cls(base=GRPO(clip_ratio_high=0.2, loss_aggregation="token-mean"))

    @classmethod
    def released(cls) -> ClipV:
        """The authors' code."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        dropping = drop(
            near_the_policy(self.mu, self.max_dropped_ratio), shrink=self.denominator == "shrink"
        )
        return compose(self.base, dropping._replace(reductions=(expected_tilt(EXPECTED),)))
