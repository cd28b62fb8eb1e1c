"""EPO: keep entropy near its own history (Xu et al. 2025, arXiv:2509.22576).

An entropy bonus, and a penalty on tokens whose entropy leaves a corridor around the mean entropy of
all earlier steps: ``loss - weight * (H - beta(step) * penalty)``, both means over episodes, then
turns, then tokens (eq. 2 and 4). The weight of the penalty falls from 2 to 1 times its size.

Differs from the paper: both sides of the corridor are in force, as its appendix recommends (the
runs had (0, 2), which has no lower side); and the penalty outweighs the bonus, so that entropy
above the corridor is pushed down. With the paper's sizes it is only pushed up more slowly.

``paper()``: ReLU penalty of version 2, one reference for all turns, the sizes of its runs.
``released()``: an indicator for a penalty, which has *no gradient*, so that only the bonus acts;
a reference per turn that includes the current step and is padded from the left; token means; a
schedule in two pieces over 150 steps, however long the run; nothing before a turn as late as 25;
rewards and the rest of the loss of ``GRPO.released()``. Not reproduced: the code decides that last
point per micro-batch, this per batch; and what ``GRPO.released()`` leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.credit.transforms import chain
from agentgym.credit.weights import TOKENS, TURNS, side_weights
from agentgym.losses.compose import Schedule, add, scale, weighted_by
from agentgym.losses.surrogates import entropy_bonus
from agentgym.utils.bounds import above, at_least, ordered
from agentgym_trainers.corridor import (
    outside,
    outside_indicator,
    overall_history,
    padded_history,
    turn_history,
)
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO


def settle(middle: int, decay: float = 3.0) -> Schedule:
    """``1 + exp(-decay * step / middle)``, eq. 5: from 2 towards 1."""
    return lambda step: 1 + math.exp(-decay * step / middle)


def two_pieces(steps: int = 150) -> Schedule:
    """The released code's: from 1 to 0.83 in the first half, then from 0.8 to 0.04, with a jump."""
    half = steps // 2

    def schedule(step: int) -> float:
        at = min(max(step, 0), steps)
        if at <= half:
            return 1 - 0.2 * (1 - math.exp(-2 * at / half))
        return 0.8 * math.exp(-3 * (at - half) / (steps - half))

    return schedule


@dataclass(frozen=True, kw_only=True)
class EPO:
    """Entropy-regularised policy optimisation, on GRPO or PPO."""

    about: ClassVar[About] = About(
        "2509.22576",
        "its base's",
        "its base's, and a corridor around past entropy",
        "its base's, an entropy bonus, and a penalty outside the corridor",
    )

    base: GRPO | PPO = field(default_factory=GRPO)
    """The method that is regularised."""
    entropy_coef: float = 0.001
    """Weight of the entropy bonus, per nat; 0 leaves the base."""
    smoothing_weight: float = 1.0
    """Weight of the penalty beside the bonus, at the end of the schedule; 0 leaves the bonus."""
    kappa_low: float = 0.5
    """Lower side of the corridor, in parts of the reference; 0 means none."""
    kappa_high: float = 1.5
    """Upper side."""
    penalty_form: Literal["distance", "indicator"] = "distance"
    """What a token pays outside."""
    entropy_history: Literal["overall", "per-turn", "padded"] = "overall"
    """Past entropy that serves as reference: of all turns, per turn number, or as released."""
    entropy_aggregation: Literal["turn-mean", "token-mean"] = "turn-mean"
    """What counts the same in bonus and penalty."""
    penalty_schedule: Literal["settle", "two-pieces"] = "settle"
    """How the weight of the penalty changes."""
    midpoint: float = 0.5
    """k_mid as a part of the run; sets the pace of the schedule ``settle``."""
    history_turns: int = 50
    """Turn numbers with a history of their own."""
    gate_turn: int = 0
    """Padded history: no penalty in a batch without a turn this late."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "entropy_coef", "smoothing_weight", "kappa_low", "gate_turn")
        at_least(1, self, "history_turns")
        above(0, self, "kappa_high", "midpoint")
        ordered(self, "kappa_low", "kappa_high")

    @classmethod
    def paper(cls) -> EPO:
        """The paper's ALFWorld runs, version 2."""
        return cls(
            base=GRPO(clip_ratio_high=0.2, loss_aggregation="token-mean"),
            smoothing_weight=0.1,
            kappa_low=0.0,
            kappa_high=2.0,
        )

    @classmethod
    def released(cls) -> EPO:
        """The authors' code."""
        return cls(
            base=replace(GRPO.released(), entropy_coef=0.0),
            smoothing_weight=0.1,
            penalty_form="indicator",
            entropy_history="padded",
            entropy_aggregation="token-mean",
            penalty_schedule="two-pieces",
            gate_turn=25,
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = self.base.build(run)
        if not self.entropy_coef:
            return base
        history = {
            "overall": overall_history(self.kappa_low, self.kappa_high),
            "per-turn": turn_history(self.kappa_low, self.kappa_high, self.history_turns),
            "padded": padded_history(
                self.kappa_low, self.kappa_high, self.history_turns, self.gate_turn
            ),
        }
        penalty = {"distance": outside, "indicator": outside_indicator}
        schedule = {"settle": settle(run.steps_in(self.midpoint)), "two-pieces": two_pieces()}
        beta = schedule[self.penalty_schedule]
        column = {"turn-mean": TURNS, "token-mean": TOKENS}[self.entropy_aggregation]
        return extend(
            base,
            credit=chain(history[self.entropy_history], side_weights(column)),
            loss=add(
                scale(self.entropy_coef, weighted_by(column, entropy_bonus())),
                scale(
                    lambda step: self.entropy_coef * self.smoothing_weight * beta(step),
                    weighted_by(column, penalty[self.penalty_form]()),
                ),
            ),
        )
