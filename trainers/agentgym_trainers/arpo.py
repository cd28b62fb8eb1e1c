"""ARPO: branch where the policy has become unsure (Dong et al. 2025, arXiv:2507.19849).

Half of a task's episodes begin at the start. Wherever the entropy of a turn exceeds that of its
path's first turn by enough, the path forks, and the episodes share all that came before.

Differs from the paper: the fork comes before the uncertain decision is carried out, so that another
decision is made in the same place; entropy is the mean over the turn's tokens in nats; forking is
left to chance, with the probability that the paper compares with a threshold.

``paper()`` compares with the threshold. ``released()`` forks after the world has answered, and
measures the sum over the first 20 tokens divided by the logarithm of the vocabulary (the engine
reports the entropy of the whole distribution, where the code has that of its ten likeliest tokens).
The shared-token advantage of the paper was given up in the code too: advantages are GRPO's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm
from agentgym.errors import ImpossibleValue
from agentgym.rollout.branching import (
    BranchPoint,
    above_threshold,
    branch_after_acting,
    branch_before_acting,
    fixed_roots,
    grow_tree,
    with_probability,
)
from agentgym.utils.bounds import at_least, within
from agentgym_trainers.forking import MEASURES, rise, rising_probability
from agentgym_trainers.grpo import GRPO


@dataclass(frozen=True, kw_only=True)
class ARPO:
    """Agentic reinforced policy optimisation."""

    about: ClassVar[About] = About(
        "2507.19849",
        "half from the start, half forked where entropy has risen",
        "return, centred and scaled within the task",
        "clipped surrogate",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives credit and loss; its group size is the budget of a task."""
    initial_rollouts: int = 4
    """Episodes that begin at the start."""
    beam_size: int = 2
    """Ways in which a path goes on where it forks."""
    branch_probability: float = 0.5
    """Probability of forking when entropy is what it was: alpha."""
    entropy_weight: float = 0.2
    """How much a rise of entropy by 1 adds: beta."""
    branch_threshold: float = 0.5
    """What the probability must exceed, where forking is not left to chance: tau."""
    branch_rule: Literal["chance", "threshold"] = "chance"
    """How it is decided."""
    entropy_measure: Literal["mean", "sum"] = "mean"
    """Entropy of a turn: mean over tokens in nats, or the released code's sum."""
    branch_point: Literal["before-acting", "after-acting"] = "before-acting"
    """Whether the fork shares the uncertain decision."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "initial_rollouts")
        at_least(2, self, "beam_size")
        within(0, 1, self, "branch_probability", "branch_threshold")
        at_least(0, self, "entropy_weight")
        if self.initial_rollouts > self.base.group_size:
            raise ImpossibleValue(
                f"ARPO.initial_rollouts is {self.initial_rollouts}, expected at most the "
                f"budget of a task, base.group_size ({self.base.group_size})"
            )

    @classmethod
    def paper(cls) -> ARPO:
        """The paper's setting."""
        return cls(
            base=GRPO(group_size=16, clip_ratio_high=0.2, loss_aggregation="token-mean"),
            initial_rollouts=8,
            branch_rule="threshold",
        )

    @classmethod
    def released(cls) -> ARPO:
        """The authors' code."""
        return cls(
            base=GRPO(
                group_size=16, clip_ratio_high=0.2, loss_aggregation="token-mean", dual_clip=3.0
            ),
            initial_rollouts=8,
            entropy_measure="sum",
            branch_point="after-acting",
        )

    def build(self) -> Algorithm:
        """Compose it."""

        def probability(at: BranchPoint) -> float:
            return rising_probability(
                rise(at, MEASURES[self.entropy_measure]),
                self.branch_probability,
                self.entropy_weight,
            )

        rules = {
            "chance": with_probability(probability),
            "threshold": above_threshold(self.branch_threshold, probability),
        }
        spots = {"before-acting": branch_before_acting, "after-acting": branch_after_acting}
        return replace(
            self.base.build(),
            collect=grow_tree(
                self.base.group_size,
                fixed_roots(self.initial_rollouts),
                rules[self.branch_rule],
                width=self.beam_size,
                order=spots[self.branch_point],
            ),
        )
