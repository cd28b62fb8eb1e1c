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

    host: GRPO = field(default_factory=GRPO)
    """Whose credit and loss these are; its group size is the budget of a task."""
    roots: int = 4
    """Episodes that begin at the start."""
    width: int = 2
    """Ways in which a path goes on where it forks."""
    base: float = 0.5
    """Probability of forking when entropy is what it was: alpha."""
    slope: float = 0.2
    """How much a rise of entropy by 1 adds: beta."""
    threshold: float = 0.5
    """What the probability must exceed, where forking is not left to chance: tau."""
    rule: Literal["chance", "threshold"] = "chance"
    """How it is decided."""
    measure: Literal["mean", "sum"] = "mean"
    """Entropy of a turn: mean over tokens in nats, or the released code's sum."""
    fork: Literal["before-acting", "after-acting"] = "before-acting"
    """Whether the fork shares the uncertain decision."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "roots")
        at_least(2, self, "width")
        within(0, 1, self, "base", "threshold")
        at_least(0, self, "slope")
        if self.roots > self.host.group_size:
            raise ImpossibleValue(
                f"ARPO.roots is {self.roots}, expected at most the budget of a task, "
                f"host.group_size ({self.host.group_size})"
            )

    @classmethod
    def paper(cls) -> ARPO:
        """The paper's setting."""
        return cls(
            host=GRPO(group_size=16, clip_high=0.2, mean="tokens"), roots=8, rule="threshold"
        )

    @classmethod
    def released(cls) -> ARPO:
        """The authors' code."""
        return cls(
            host=GRPO(group_size=16, clip_high=0.2, mean="tokens", dual=3.0),
            roots=8,
            measure="sum",
            fork="after-acting",
        )

    def build(self) -> Algorithm:
        """Compose it."""

        def probability(at: BranchPoint) -> float:
            return rising_probability(rise(at, MEASURES[self.measure]), self.base, self.slope)

        rules = {
            "chance": with_probability(probability),
            "threshold": above_threshold(self.threshold, probability),
        }
        spots = {"before-acting": branch_before_acting, "after-acting": branch_after_acting}
        return replace(
            self.host.build(),
            collect=grow_tree(
                self.host.group_size,
                fixed_roots(self.roots),
                rules[self.rule],
                width=self.width,
                order=spots[self.fork],
            ),
        )
