"""DCPO: steer entropy by draws that were never made (2026, arXiv:2601.12730).

What a warmer (or cooler) policy would have done is weighed in, instead of played: with
``f = p_T / p_1`` of each token before the update, an advantage becomes ``(1 - a) A + a c f``, where
c is 1 on won episodes. T is 1.2 where entropy is at most the target and 0.8 where it is above; a
grows with the distance from the target, up to a bound, and with the rarity of wins: ``a0 =
min(|target - H|, bound) / (share of wins)``, ``a = a0 / (1 + a0)``. f is per token; its product
over an episode would explode. (Another DCPO, of dynamic clipping, is arXiv:2509.02333.)

Differs from the code: entropy is this batch's own, over the whole vocabulary, where the code has
the sampled tokens' of the step before, and 0 at the first; an episode counts as won when the
environment reports it, where the code wants a reward above 0.05, which a
bonus for format alone would reach; without a win a is 0, where the code divides by 0.
``paper()`` and ``released()`` are the code's rules, with that guard.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.credit.transforms import State, Transform, chain
from agentgym.errors import ImpossibleValue
from agentgym.losses.reductions import tempered_logprob
from agentgym.losses.surrogates import policy_gradient
from agentgym.utils.bounds import above, at_least
from agentgym_trainers.grpo import GRPO

WARM = "dcpo/warm"
"""Private column: log-probability at the higher temperature, before the update, in nats."""
COOL = "dcpo/cool"
"""Private column: log-probability at the lower temperature."""


class Target(NamedTuple):
    """The entropy to hold, and how hard."""

    entropy: float
    """In nats."""
    bound: float
    """Distance beyond which the pull grows no more, in nats."""


def share_of_bonus(target: Target, entropy: float, wins: float) -> float:
    """``a``, in [0, 1): 0 at the target and where no episode won."""
    if wins <= 0:
        return 0.0
    pull = min(abs(target.entropy - entropy), target.bound) / wins
    return pull / (1 + pull)


def exact_entropy(batch: Batch) -> float:
    """Mean entropy over the tokens of the batch, in nats."""
    return float(batch.entropy[batch.mask].mean()) if batch.mask.any() else 0.0


def sampled_entropy(batch: Batch) -> float:
    """The same, estimated from the log-probabilities of what was sampled."""
    return -float(batch.logprob[batch.mask].mean()) if batch.mask.any() else 0.0


def weigh_in(
    target: Target,
    entropy: Callable[[Batch], float],
    success: Callable[[Batch], Bool[Tensor, " E"]],
    *,
    warm: float,
    cool: float,
    late: bool,
) -> Transform:
    """Mix the weight of the tempered policy into the advantages of episodes that succeeded.

    Args:
        target: What is held.
        entropy: How it is measured.
        success: Which episodes get the bonus.
        warm: Temperature where entropy is too low.
        cool: Temperature where it is too high.
        late: Go by the entropy of the step before, 0 at first.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        now = entropy(batch)
        seen = state if late else now
        won = success(batch)
        share = share_of_bonus(target, seen, float(won.float().mean()) if len(won) else 0.0)
        column = WARM if seen <= target.entropy else COOL
        factor = ((batch.extra[column] - batch.logprob) * batch.mask).clamp(-20, 20).exp()
        bonus = factor * won[batch.episode_of_token] * batch.mask
        return batch.with_(advantage=(1 - share) * batch.advantage + share * bonus), now

    asked = (tempered_logprob(WARM, warm), tempered_logprob(COOL, cool))
    return Transform(lambda: 0.0, apply, reductions=asked)


def won(batch: Batch) -> Bool[Tensor, " E"]:
    """Episodes that the environment called solved."""
    return batch.won


def rewarded(batch: Batch) -> Bool[Tensor, " E"]:
    """Episodes with a return above 0.05."""
    return torch.as_tensor(batch.reward > 0.05)


@dataclass(frozen=True, kw_only=True)
class DCPO:
    """Distribution-centric policy optimisation: GRPO held at an entropy."""

    about: ClassVar[About] = About(
        "2601.12730",
        "n episodes side by side",
        "return, centred and scaled within the task, mixed with the weight of a tempered policy",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=lambda: GRPO(dual_clip=3.0))
    """Method that gives credit and loss."""
    target_entropy: float = 0.5
    """Entropy to hold, in nats per token."""
    max_entropy_gap: float = 0.1
    """Distance from it beyond which the pull grows no more, in nats."""
    high_temperature: float = 1.2
    """Temperature of the imagined policy where entropy is at most the target."""
    low_temperature: float = 0.8
    """Temperature where it is above."""
    success_criterion: Literal["won", "rewarded"] = "won"
    """Which episodes get the bonus."""
    entropy_source: Literal["now", "before"] = "now"
    """The batch's own entropy, or an estimate from the step before."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "target_entropy", "max_entropy_gap")
        above(0, self, "low_temperature")
        at_least(1, self, "high_temperature")
        if self.low_temperature > 1:
            raise ImpossibleValue(
                f"DCPO.low_temperature is {self.low_temperature}, expected at most 1"
            )

    @classmethod
    def paper(cls) -> DCPO:
        """The paper's setting, as far as it is known: the code's."""
        base = GRPO(clip_ratio_high=0.2, dual_clip=3.0, loss_aggregation="token-mean")
        return cls(base=base, success_criterion="rewarded", entropy_source="before")

    @classmethod
    def released(cls) -> DCPO:
        """The authors' code."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it; what the bonus gave an advantage to has weight again."""
        late = self.entropy_source == "before"
        base = self.base
        mixing = weigh_in(
            Target(self.target_entropy, self.max_entropy_gap),
            sampled_entropy if late else exact_entropy,
            {"won": won, "rewarded": rewarded}[self.success_criterion],
            warm=self.high_temperature,
            cool=self.low_temperature,
            late=late,
        )
        return base.compose(
            policy_gradient(base.clip_ratio_low, base.clip_ratio_high, dual_clip=base.dual_clip),
            credit=chain(mixing, base.weighting()),
        )
