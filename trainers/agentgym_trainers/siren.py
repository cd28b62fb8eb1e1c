"""SIREN: hold the entropy of the peaks where it began (2025, arXiv:2509.25133).

The entropy of a token is that of its nucleus, the most probable tokens of mass ``mass``. In each
episode only its peaks count, the tokens above the 0.8-quantile. With H the mean over episodes of
the mean over their peaks, the loss gains ``weight * (H - anchor)^2``, where the anchor is H of the
first batch.

The square is of a mean over the minibatch, so a per-token loss carries its tangent: with
``g = H - anchor`` a peak of entropy h pays ``g (2 (h - H) + g)``, whose mean is ``g^2`` and whose
gradient is that of ``g^2``.

Differs from the paper's code: the token that reaches the mass belongs to the nucleus, so that only
certainty itself has an empty one; H is over the minibatch, not over whatever was split off to fit
into memory; episodes without a peak (all tokens alike) are left out of H instead of
counting 0. ``released()`` has the exclusive nucleus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Select, extend
from agentgym.batch.batch import Batch, episode_mean
from agentgym.batch.turns import quantile_by, turns_of
from agentgym.credit.transforms import State, Transform
from agentgym.losses.compose import Loss, Outputs, scale, times_column
from agentgym.losses.reductions import Reduction, nucleus_entropy
from agentgym.losses.surrogates import entropy_bonus
from agentgym.utils.bounds import at_least, within
from agentgym_trainers.drgrpo import DrGRPO
from agentgym_trainers.grpo import GRPO

NUCLEUS = "siren/nucleus"
"""Entropy of the nucleus, in nats: a private column before the update, in ``Outputs.extra`` now."""
PEAK = "siren/peak"
"""Private column: weights of the peaks, the same in sum for each episode; 0 elsewhere."""
MEAN = "siren/mean"
"""Private column: H of the minibatch, in nats, the same on all tokens."""
ANCHOR = "siren/anchor"
"""Private column: where H is held, in nats, the same on all tokens."""
COEFFICIENT = "siren/coefficient"
"""Private column: weight of the adaptive bonus, per nat, the same on all tokens."""

Scope = Literal["episode", "turn"]
"""What has peaks: an episode, or each of its turns, so that short ones are not passed over."""


def peaks(
    value: Float[Tensor, " P"], batch: Batch, level: float, scope: Scope
) -> Bool[Tensor, " P"]:
    """Tokens whose value exceeds the quantile of their episode or turn."""
    turns = turns_of(batch)
    key: Int[Tensor, " A"] = batch.episode_of_token[turns.at] if scope == "episode" else turns.turn
    size = len(batch.group) if scope == "episode" else len(turns.length)
    inside = value[turns.at]
    high = inside > quantile_by(inside, key, level, size)[key]
    return torch.zeros_like(batch.mask).index_put((turns.at,), high)


def height(
    value: Float[Tensor, " P"], batch: Batch, level: float, scope: Scope
) -> tuple[Float[Tensor, " P"], float]:
    """Weights of the peaks, which sum to 1 unless there is none, and H."""
    weight = episode_mean(batch, peaks(value, batch, level, scope))
    return weight, float((weight * value).sum())


def anchored(level: float, scope: Scope, nucleus: Reduction) -> Transform:
    """Write the anchor, which is H of the first batch that has a peak."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        weight, mean = height(batch.extra[NUCLEUS] * batch.mask, batch, level, scope)
        anchor = mean if not state and bool(weight.sum() > 0) else state[0] if state else 0.0
        known = (anchor,) if state or bool(weight.sum() > 0) else ()
        column = anchor * batch.mask.to(batch.entropy)
        written = {ANCHOR: column, PEAK: weight, MEAN: mean * batch.mask.to(batch.entropy)}
        return batch.with_(**written), known

    return Transform(tuple, apply, frozenset(), frozenset({ANCHOR, PEAK, MEAN}), (nucleus,))


def find_peaks(level: float, scope: Scope) -> Select:
    """Write the peaks of a minibatch and their H, as the policy is now."""

    def apply(outputs: Outputs, batch: Batch, generator: torch.Generator) -> Batch:
        weight, mean = height(outputs.extra[NUCLEUS] * batch.mask, batch, level, scope)
        return batch.with_(**{PEAK: weight, MEAN: mean * batch.mask.to(batch.entropy)})

    return Select(apply, frozenset({PEAK, MEAN}), asks=frozenset({NUCLEUS}))


def squared_distance(nucleus: Reduction) -> Loss:
    """A loss whose mean over the peaks is ``(H - anchor)^2``, in value and in gradient."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        gap = batch.extra[MEAN] - batch.extra[ANCHOR]
        return gap * (2 * (outputs.extra[NUCLEUS] - batch.extra[MEAN]) + gap)

    return Loss(apply, frozenset({PEAK, MEAN, ANCHOR}), PEAK, reductions=(nucleus,), name="anchor")


def adaptive_coefficient(start: float, target: float, rate: float) -> Transform:
    """Write the weight of an entropy bonus that holds entropy by itself; SIREN's rival.

    It rises by ``rate`` for each nat that the batch's mean entropy lies below the target, falls
    likewise above it, and is never negative: a gradient step on the dual variable of Haarnoja et
    al. 2018 (arXiv:1812.05905), eq. 18. State is the weight.

    Args:
        start: Weight before the first batch, per nat.
        target: In nats per token.
        rate: Change of the weight per nat of distance, per training step.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        inside = batch.entropy[batch.mask]
        missing = target - float(inside.mean()) if len(inside) else 0.0
        weight = max(0.0, state + rate * missing)
        return batch.with_(**{COEFFICIENT: weight * batch.mask.to(batch.entropy)}), weight

    return Transform(lambda: start, apply, writes=frozenset({COEFFICIENT}))


def adaptive_bonus() -> Loss:
    """The entropy bonus under the weight of ``adaptive_coefficient``."""
    return times_column(COEFFICIENT, entropy_bonus())


@dataclass(frozen=True, kw_only=True)
class SIREN:
    """Selective entropy regularisation, on Dr.GRPO or GRPO."""

    about: ClassVar[About] = About(
        "2509.25133",
        "its base's",
        "its base's",
        "its base's, and the squared distance of peak entropy from where it began",
    )

    base: DrGRPO | GRPO = field(default_factory=DrGRPO)
    """The method that is regularised."""
    anchor_weight: float = 0.005
    """Of the squared distance, per nat squared."""
    top_p: float = 0.8
    """Probability of the nucleus."""
    entropy_quantile: float = 0.8
    """Quantile above which a token is a peak."""
    peaks_per: Scope = "episode"
    """What has peaks."""
    nucleus_boundary: Literal["inclusive", "exclusive"] = "inclusive"
    """Whether the token that reaches the mass belongs to it."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "anchor_weight")
        within(0, 1, self, "top_p", "entropy_quantile")

    @classmethod
    def paper(cls) -> SIREN:
        """The paper's setting."""
        return cls(base=DrGRPO(clip_ratio_low=0.28, clip_ratio_high=0.28))

    @classmethod
    def released(cls) -> SIREN:
        """The authors' code."""
        return cls(
            base=DrGRPO(clip_ratio_low=0.28, clip_ratio_high=0.28), nucleus_boundary="exclusive"
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        nucleus = nucleus_entropy(
            NUCLEUS, self.top_p, inclusive=self.nucleus_boundary == "inclusive"
        )
        return extend(
            self.base.build(run),
            credit=anchored(self.entropy_quantile, self.peaks_per, nucleus),
            loss=scale(self.anchor_weight, squared_distance(nucleus)),
            select=find_peaks(self.entropy_quantile, self.peaks_per),
        )
