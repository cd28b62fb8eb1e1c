"""What is compared: arms, each one evaluation or those of several training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.measures import Measure, passes
from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.intervals import Floats
from agentgym.evaluation.task_result import TaskResult
from agentgym.types import Task


@dataclass(frozen=True, slots=True)
class Arm:
    """One evaluation, or one per training seed of the same method; all on the same tasks."""

    name: str
    reports: tuple[Report, ...]

    @property
    def first(self) -> Report:
        """The evaluation of the first seed."""
        return self.reports[0]

    def values(self, measure: Measure) -> Floats:
        """A measure per seed and task, (S, M); NaN where a task has too few episodes."""
        return np.array([[measure(task) for task in report.tasks] for report in self.reports])

    def episodes(self) -> list[list[TaskResult]]:
        """Results of each task, one per seed."""
        return [list(each) for each in zip(*(r.tasks for r in self.reports), strict=True)]


class Aligned(NamedTuple):
    """Arms on the tasks that all of them have."""

    arms: tuple[Arm, ...]
    note: str
    """What was left out; empty where the panels are the same."""


def align(arms: Sequence[Arm]) -> Aligned:
    """Restrict arms to the tasks that all have, in the order of the first.

    Raises:
        ConfigError: They have fewer than two tasks in common.
    """
    reports = [report for arm in arms for report in arm.reports]
    panels = {report.panel.digest: report.panel for report in reports}
    if len(panels) == 1:
        return Aligned(tuple(arms), "")
    shared = set.intersection(*(set(panel.tasks) for panel in panels.values()))
    if len(shared) < 2:
        raise ConfigError(
            "cannot compare results on different panels, which have "
            f"{len(shared) or 'no'} task{'' if len(shared) == 1 else 's'} in common: "
            + "; ".join(f"{p.env} {p.split}, {len(p)} tasks" for p in panels.values())
            + ". Play the same panel"
        )
    sizes = " and ".join(str(len(panel)) for panel in panels.values())
    note = f"The panels differ: compared on the {len(shared)} tasks that all have, of {sizes}."
    return Aligned(tuple(_only(arm, shared) for arm in arms), note)


def _only(arm: Arm, shared: set[Task]) -> Arm:
    def cut(report: Report) -> Report:
        tasks = tuple(result for result in report.tasks if result.task in shared)
        order = {task.task: place for place, task in enumerate(arm.first.tasks)}
        return replace(report, tasks=tuple(sorted(tasks, key=lambda each: order[each.task])))

    return Arm(arm.name, tuple(map(cut, arm.reports)))


def arm_names(groups: Sequence[Sequence[Report]], names: Sequence[str]) -> tuple[str, ...]:
    """Names of arms: the given ones, else their models', numbered where two are equal.

    Raises:
        ConfigError: There are more or fewer names than arms, or a name is given twice.
    """
    if names and (len(names) != len(groups) or len(set(names)) < len(names)):
        raise ConfigError(
            f"got {len(groups)} evaluations and the names {', '.join(names)}: give each its own"
        )
    labels = list(names) or [group[0].spec.label for group in groups]
    repeated = {label for label in labels if labels.count(label) > 1}
    return tuple(
        f"{label} ({number + 1})" if label in repeated else label
        for number, label in enumerate(labels)
    )


def check_episodes(arms: Sequence[Arm], measure: Measure) -> None:
    """Refuse a measure that needs more episodes than were played.

    Raises:
        ConfigError: Naming an evaluation that has too few.
    """
    for arm in arms:
        for report in arm.reports:
            if report.episodes < measure.episodes:
                raise ConfigError(
                    f"{measure.name} needs {measure.episodes} episodes per task, {arm.name} has "
                    f"{report.episodes}: choose a smaller k, or play more with `--panel.episodes`"
                )


class Flip(NamedTuple):
    """A task that one won and the other lost, by the majority of its episodes."""

    task: Task
    task_type: str
    first: float
    """Share of the episodes that the first won."""
    second: float


def flips(first: Arm, second: Arm) -> tuple[Flip, ...]:
    """Tasks that flipped, the clearest first; half of the episodes is neither won nor lost."""
    once, found = passes(1), []
    for mine, theirs in zip(first.episodes(), second.episodes(), strict=True):
        shares = [_mean([once(result) for result in each]) for each in (mine, theirs)]
        if min(shares) < 0.5 < max(shares):
            kind = next((r.task_type for r in (*mine, *theirs) if r.task_type), "")
            found.append(Flip(mine[0].task, kind, shares[0], shares[1]))
    return tuple(sorted(found, key=lambda flip: -abs(flip.second - flip.first)))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
