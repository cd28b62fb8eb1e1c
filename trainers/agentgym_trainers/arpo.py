"""ARPO: branch where the policy has become unsure (Dong et al. 2025, arXiv:2507.19849).

Half of a task's episodes begin at the start. Wherever the entropy of a turn exceeds that of its
path's first turn by enough, the path forks, and the episodes share all that came before.

Differs from the paper: the fork comes before the uncertain decision is carried out, so that another
decision is made in the same place; entropy is the mean over the turn's tokens in nats; forking is
left to chance, with the probability that the paper compares with a threshold, lowered so that forks
spread over the turns of an episode (the paper's paths have 3 to 6 decisions).

``paper()`` compares with the threshold. ``released()`` forks after the environment has answered,
measures the sum over the first 20 tokens divided by the logarithm of the vocabulary, relative to
the path's own first segment, which for a fork is its own, and has a standard deviation with one
degree of freedom less. Not reproduced: entropy is over the top ten tokens in the code. The
shared-token advantage of the paper was given up in the code too: advantages are GRPO's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
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
from agentgym_trainers.forking import MEASURES, rise, rising_probability, spread
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
    """Ways in which a path continues where it forks."""
    branch_probability: float | None = None
    """Probability of forking when entropy is what it was: alpha. Unset: 0.5 where an episode has at
    most 6 turns; else the one that spreads forks over the turns it may have."""
    entropy_weight: float = 0.2
    """How much a rise of entropy by 1 adds to a probability of 0.5: beta; to a spread one in
    proportion."""
    first_entropy: Literal["root", "own"] = "root"
    """What a rise is measured from in a fork: the first turn of its root, or its own first one."""
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
            branch_probability=0.5,
        )

    @classmethod
    def released(cls) -> ARPO:
        """The authors' code."""
        return cls(
            base=GRPO(
                group_size=16,
                clip_ratio_high=0.2,
                loss_aggregation="token-mean",
                dual_clip=3.0,
                unbiased_std=True,
            ),
            branch_probability=0.5,
            first_entropy="own",
            initial_rollouts=8,
            entropy_measure="sum",
            branch_point="after-acting",
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        fork = spread(
            self.branch_probability,
            self.entropy_weight,
            by_chance=self.branch_rule == "chance",
            forks=self.base.group_size - self.initial_rollouts,
            roots=self.initial_rollouts,
            run=run,
        )

        def probability(at: BranchPoint) -> float:
            return rising_probability(
                rise(at, MEASURES[self.entropy_measure]),
                fork.base,
                fork.slope,
            )

        rules = {
            "chance": with_probability(probability),
            "threshold": above_threshold(self.branch_threshold, probability),
        }
        spots = {"before-acting": branch_before_acting, "after-acting": branch_after_acting}
        return replace(
            self.base.build(run),
            collect=grow_tree(
                self.base.group_size,
                fixed_roots(self.initial_rollouts),
                rules[self.branch_rule],
                width=self.beam_size,
                order=spots[self.branch_point],
                inherit_first=self.first_entropy == "root",
            ),
        )
