"""GiGPO: groups of episodes, and within them groups of steps (Feng et al. 2025, arXiv:2505.10978).

Turns of one task that began with the same observation form a step group, whichever episode they
are from. To the episode's advantage comes how much better the discounted return of a turn was than
that of its step group; a turn alone in its group gets nothing.

Differs from the paper: the mean over episodes, and groups without an advantage left out, as in our
GRPO; standard deviations of step groups have one degree of freedom less, as in the code.
``paper()`` has the KL penalty, also on groups of equal returns, and one clip.

``released()`` has the rewards, statistics and loss of ``GRPO.released()``; its docstring states
what is not reproduced; the fine is taken from the discounted return of the malformed turn, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch
from agentgym.batch.turns import discounted_returns, turns_of
from agentgym.credit.advantages import step_groups
from agentgym.credit.transforms import Transform, centre, chain, deviation_by, stateless
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO


def add_step_advantage(
    weight: float,
    discount: float,
    *,
    scale: bool = True,
    epsilon: float = 1e-6,
    malformed_penalty: float = 0.0,
) -> Transform:
    """Add ``weight`` times the return of a turn, centred (and scaled) within its step group.

    Args:
        weight: Of the step's advantage beside the episode's.
        discount: Of reward, per turn.
        scale: Divide by the step group's standard deviation.
        epsilon: Added to it, in units of reward.
        malformed_penalty: Taken from the discounted return of a turn without an action.
    """

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        found = discounted_returns(turns, turns.first(batch.turn_reward), discount)
        found = found - malformed_penalty * (~turns.first(batch.parsed)).to(found)
        group = step_groups(turns, batch)
        step = centre(found, group)
        if scale:
            step = step / (deviation_by(step, group, unbiased=True) + epsilon)
        return batch.with_(advantage=batch.advantage + weight * turns.spread(step, batch))

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class GiGPO:
    """Group-in-group policy optimisation."""

    about: ClassVar[About] = About(
        "2505.10978",
        "n episodes side by side",
        "GRPO's, plus the turn's return compared with turns from the same observation",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives collection, episode advantage and loss."""
    step_advantage_weight: float = 1.0
    """Weight of the step's advantage beside the episode's."""
    discount: float = 0.95
    """Of reward, per turn, within step groups."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(0, self, "step_advantage_weight")
        above(0, self, "discount")
        within(0, 1, self, "discount")

    @classmethod
    def paper(cls) -> GiGPO:
        """The paper's setting."""
        return cls(base=GRPO(clip_ratio_high=0.2, kl_coef=0.01, tied_groups="keep"))

    @classmethod
    def released(cls) -> GiGPO:
        """The authors' code."""
        return cls(base=GRPO.released())

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = self.base.build(run)
        if not self.step_advantage_weight:
            return base
        per_turn = self.base.group_statistics == "turns"
        step = add_step_advantage(
            self.step_advantage_weight,
            self.discount,
            scale=self.base.scale_by_std,
            malformed_penalty=self.base.malformed_penalty if per_turn else 0.0,
        )
        return replace(base, credit=chain(base.credit, step, self.base.weighting()))
