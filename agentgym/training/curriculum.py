"""Which training tasks a step plays: all equally often, or by the success measured on each.

A group of episodes that all win or all lose has no advantage, so its task teaches nothing then.
``filter`` leaves such tasks out; ``learning-progress`` draws tasks in proportion to the distance of
a fast and a slow moving average of their success (the measure of Matiisen et al. 2017,
arXiv:1707.00183, without its sign). Tasks that were not measured yet are as interesting as any.

A step's tasks are drawn when they are first asked for, with a seed that is a function of the step,
and are then remembered: a resumed run plays the same tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.settings import CurriculumSettings
from agentgym.training.trainer import task_of
from agentgym.types import Task, Trajectory
from agentgym.utils.seeds import derive

SLOW = 0.2
"""Rate of the slow moving average as a share of that of the fast one."""

Weights = NDArray[np.float64]


class Success(NamedTuple):
    """Measured success of one task, in [0, 1]."""

    mean: float
    """Moving average that starts at the first group's."""
    fast: float
    """Moving average that starts at 0."""
    slow: float
    """The same, a fifth as fast."""

    @classmethod
    def first(cls, found: float, rate: float) -> Success:
        """After the first group."""
        return cls(found, rate * found, SLOW * rate * found)

    def updated(self, found: float, rate: float) -> Success:
        """After another group."""
        slow = SLOW * rate
        return Success(
            self.mean + rate * (found - self.mean),
            self.fast + rate * (found - self.fast),
            self.slow + slow * (found - self.slow),
        )

    @property
    def progress(self) -> float:
        """How much it changes, in [0, 1]."""
        return abs(self.fast - self.slow)


@dataclass
class Curriculum:
    """The tasks of every step; ``curriculum(step)`` is a ``schedule.Tasks``."""

    tasks: Sequence[Task]
    count: int
    """Tasks of a step."""
    seed: int
    settings: CurriculumSettings = field(default_factory=CurriculumSettings)
    measured: dict[int, Success] = field(default_factory=dict)
    """By the position of the task."""
    drawn: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Positions of the tasks of each step that was asked for."""

    def __post_init__(self) -> None:
        """Number the tasks."""
        self._position = {task: number for number, task in enumerate(self.tasks)}

    def __call__(self, step: int) -> list[Task]:
        """The tasks of a step."""
        if self.settings.kind == "uniform":
            first = step * self.count
            return [task_of(self.tasks, first + i, self.seed) for i in range(self.count)]
        if step not in self.drawn:
            self.drawn[step] = self._draw(step)
        return [self.tasks[number] for number in self.drawn[step]]

    def record(self, groups: Sequence[Sequence[Trajectory]]) -> None:
        """Measure the success of the groups that a step has learned from."""
        for group in groups:
            won = [episode.won for episode in group if episode.stop.scored]
            if not won:
                continue
            number, found = self._position[group[0].task], fmean(won)
            before, rate = self.measured.get(number), self.settings.rate
            self.measured[number] = (
                Success.first(found, rate) if before is None else before.updated(found, rate)
            )

    def probabilities(self) -> Weights:
        """Of each task, to be the first that is drawn now."""
        size = len(self.tasks)
        weights = np.fromiter((self._interest(number) for number in range(size)), float, size)
        total = weights.sum()
        even = np.full(size, 1 / size)
        if total == 0:
            return even
        explore = self.settings.explore
        mixed: Weights = (1 - explore) * weights / total + explore * even
        return mixed

    def metrics(self) -> dict[str, float]:
        """What is logged; nothing for a uniform choice."""
        if self.settings.kind == "uniform":
            return {}
        found, settings, size = self.measured.values(), self.settings, len(self.tasks)
        chances = self.probabilities()
        entropy = -sum(p * math.log(p) for p in chances.tolist() if p > 0)
        return {
            "curriculum/measured": len(found) / size,
            "curriculum/success": fmean(each.mean for each in found) if found else 0.0,
            "curriculum/solved": sum(each.mean >= settings.solved for each in found) / size,
            "curriculum/hopeless": sum(each.mean <= settings.hopeless for each in found) / size,
            "curriculum/tasks": math.exp(entropy),
        }

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        measured = {number: tuple(success) for number, success in self.measured.items()}
        return {"measured": measured, "drawn": dict(self.drawn)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; an empty one starts afresh."""
        measured = state.get("measured", {})
        self.measured = {number: Success(*success) for number, success in measured.items()}
        self.drawn = dict(state.get("drawn", {}))

    def _interest(self, number: int) -> float:
        success = self.measured.get(number)
        if success is None:
            return 1.0
        if self.settings.kind == "filter":
            return float(self.settings.hopeless < success.mean < self.settings.solved)
        return success.progress

    def _draw(self, step: int) -> tuple[int, ...]:
        """Different tasks while there are enough, by their probabilities."""
        rng = np.random.default_rng(derive(self.seed, "curriculum", step))
        chances, drawn = self.probabilities(), list[int]()
        while len(drawn) < self.count:
            # The smallest of exponential times with these rates is a draw; the next smallest are
            # draws without replacement. A task without a chance comes last.
            with np.errstate(divide="ignore"):
                times = rng.exponential(size=len(chances)) / chances
            drawn += np.argsort(times, kind="stable").tolist()[: self.count - len(drawn)]
        return tuple(drawn)
