"""AEPO: balance entropy where episodes fork and where gradients clip (arXiv:2510.14545).

Not *arbitrary* entropy policy optimisation, which shares the name. Rollout: one episode shows
whether the first turn or the later ones are the uncertain ones, and splits the budget of a task
between whole episodes and forks; a path that forks again and again grows less likely to. Update:
tokens beyond the upper clip keep a bounded gradient; advantages grow with a token's entropy.

Differs from the paper: the scout is one of the task's episodes instead of an extra; forking is left
to chance with the paper's score as probability, which is lowered so that forks spread over the
turns of an episode (the papers' paths have 3 to 6 decisions); the fork comes before the uncertain
decision is carried out; entropy is the mean over a turn's tokens in nats, and that of the advantage
is taken before the update and standardised over the batch; episodes count the same.

``paper()`` discards the scout and forks beyond a threshold. ``released()``: no scout (it is
switched off in the scripts), a fixed number of roots, forks after acting by another probability,
entropy relative to a path's own first segment, which for a fork is its own, a streak per task, a
standard deviation with one degree of freedom less, and *no* entropy in the advantage, which the
code skips. Not reproduced: a streak holds in rounds in which no task of the batch forks, here it
ends, as a task is collected by itself; the code keeps the first entropies of a path by its number
in the batch and never clears them, so that from the second batch on a rise is measured from
another task's beginning; entropy is over the ten most probable tokens in the code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.credit.advantages import standardise
from agentgym.credit.transforms import Transform, stateless
from agentgym.losses.surrogates import policy_gradient_kept
from agentgym.rollout.branching import (
    BranchPoint,
    above_threshold,
    branch_after_acting,
    branch_before_acting,
    fixed_roots,
    grow_tree,
    streak_per_path,
    with_probability,
)
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.forking import (
    MEASURES,
    by_task,
    monitored,
    released_probability,
    rise,
    score,
    spread,
)
from agentgym_trainers.grpo import GRPO


def scale_by_entropy(weight: float) -> Transform:
    """Multiply advantages by ``1 + weight * z``, z the token's entropy standardised."""

    def apply(batch: Batch) -> Batch:
        z = standardise(batch.entropy, batch, epsilon=1e-12)
        return batch.with_(advantage=batch.advantage * (1 + weight * z))

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class AEPO:
    """Agentic entropy-balanced policy optimisation."""

    about: ClassVar[About] = About(
        "2510.14545",
        "a scout splits the budget between whole episodes and forks at uncertain turns",
        "return, centred and scaled within the task, more at uncertain tokens",
        "surrogate whose gains keep a gradient beyond the clip",
    )

    base: GRPO = field(default_factory=lambda: GRPO(clip_ratio_high=0.28, dual_clip=3.0))
    """Method that gives credit, clip and weights; its group size is the budget of a task."""
    root_allocation: Literal["scout", "extra-scout", "fixed"] = "scout"
    """What decides how many begin at the start."""
    root_sensitivity: float = 2.0
    """How strongly the scout's entropies move the split, per nat: beta."""
    beam_size: int = 2
    """Ways in which a path continues where it forks."""
    branch_probability: float | None = None
    """Score of forking when entropy is what it was: alpha. Unset: 0.5 where an episode has at most
    6 turns; else the one that spreads forks over the turns it may have."""
    entropy_weight: float = 0.2
    """How much a rise of entropy by 1 adds to a score of 0.5: gamma; to a spread one in
    proportion."""
    branch_penalty: float = 0.2
    """Part of the score lost for each time in a row."""
    branch_threshold: float = 0.5
    """What the score must exceed, where forking is not left to chance: tau."""
    branch_rule: Literal["chance", "threshold", "released"] = "chance"
    """How it is decided."""
    entropy_measure: Literal["mean", "sum"] = "mean"
    """Entropy of a turn: mean over tokens in nats, or the released code's sum."""
    branch_point: Literal["before-acting", "after-acting"] = "before-acting"
    """Whether the fork shares the uncertain decision."""
    first_entropy: Literal["root", "own"] = "root"
    """What a rise is measured from in a fork: the first turn of its root, or its own first one."""
    streak_per: Literal["path", "task"] = "path"
    """Scope of the count of consecutive forks."""
    entropy_advantage_weight: float = 0.2
    """How much one standard deviation of entropy adds to an advantage; 0 means nothing."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "beam_size")
        above(0, self, "root_sensitivity")
        within(0, 1, self, "branch_probability", "branch_penalty", "branch_threshold")
        at_least(0, self, "entropy_weight", "entropy_advantage_weight")

    @classmethod
    def paper(cls) -> AEPO:
        """The paper's setting, with clips of the code."""
        base = GRPO(
            group_size=16, clip_ratio_high=0.2, loss_aggregation="token-mean", dual_clip=3.0
        )
        return cls(
            base=base,
            root_allocation="extra-scout",
            branch_rule="threshold",
            branch_probability=0.5,
        )

    @classmethod
    def released(cls) -> AEPO:
        """The authors' scripts."""
        return cls(
            base=GRPO(
                group_size=16,
                clip_ratio_high=0.2,
                loss_aggregation="token-mean",
                dual_clip=3.0,
                unbiased_std=True,
            ),
            root_allocation="fixed",
            branch_probability=0.5,
            first_entropy="own",
            branch_rule="released",
            entropy_measure="sum",
            branch_point="after-acting",
            streak_per="task",
            entropy_advantage_weight=0.0,
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        n, measure = self.base.group_size, MEASURES[self.entropy_measure]
        whole = n // 2
        growing = whole - (self.root_allocation == "scout")
        fork = spread(
            self.branch_probability,
            self.entropy_weight,
            by_chance=self.branch_rule == "chance",
            forks=n - whole,
            roots=growing,
            run=run,
        )

        def paper(at: BranchPoint) -> float:
            return score(
                rise(at, measure),
                at.streak,
                fork.base,
                fork.slope,
                self.branch_penalty,
            )

        def released(at: BranchPoint) -> float:
            return released_probability(
                rise(at, measure), at.streak, self.entropy_weight, self.branch_threshold
            )

        roots = {
            "scout": monitored(n, self.root_sensitivity, measure, keep=True),
            "extra-scout": monitored(n, self.root_sensitivity, measure, keep=False),
            "fixed": fixed_roots(whole),
        }
        rules = {
            "chance": with_probability(paper),
            "threshold": above_threshold(self.branch_threshold, paper),
            "released": with_probability(released),
        }
        clip, high, dual = self.base.clip_ratio_low, self.base.clip_ratio_high, self.base.dual_clip
        base = self.base.compose(policy_gradient_kept(clip, high, below=False, dual_clip=dual))
        weight = self.entropy_advantage_weight
        return replace(
            extend(base, credit=scale_by_entropy(weight)) if weight else base,
            collect=grow_tree(
                n,
                roots[self.root_allocation],
                rules[self.branch_rule],
                width=self.beam_size,
                streaks={"path": streak_per_path, "task": by_task}[self.streak_per],
                order={"before-acting": branch_before_acting, "after-acting": branch_after_acting}[
                    self.branch_point
                ],
                inherit_first=self.first_entropy == "root",
            ),
        )
