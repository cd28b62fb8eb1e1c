"""The settings of the curriculum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, within


@dataclass(frozen=True, kw_only=True)
class CurriculumSettings:
    """Which training tasks are played; see ``agentgym.training.curriculum``."""

    section: ClassVar[str] = "curriculum"

    kind: Literal["uniform", "filter", "learning-progress"] = "uniform"
    """uniform: all tasks equally often. filter: those that are neither solved nor hopeless.
    learning-progress: in proportion to how much the success on a task changes."""
    explore: float = 0.1
    """Share of the draws that take any task, whatever its success: what was hopeless may have
    become easy."""
    hopeless: float = 0.05
    """filter: a success rate up to which a task teaches nothing."""
    solved: float = 0.95
    """filter: a success rate from which on a task teaches nothing."""
    rate: float = 0.5
    """How far the measured success of a task moves towards that of its newest group; learning
    progress is measured against a success that moves a fifth as fast."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        within(0, 1, self, "explore", "hopeless", "solved", "rate")
        above(0, self, "rate")
        if not self.hopeless < self.solved:
            raise ImpossibleValue(
                f"curriculum.hopeless is {self.hopeless}, expected less than curriculum.solved, "
                f"which is {self.solved}"
            )
