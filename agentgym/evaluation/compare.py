"""Paired comparison of two or more evaluations on one panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.paired import check_panels, paired_difference, setting_changes
from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.intervals import LEVEL, Interval
from agentgym.evaluation.stats.significance import holm, sign_flip_p
from agentgym.evaluation.tables import Grid
from agentgym.evaluation.task_result import passes
from agentgym.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two evaluations, compared task by task by pass@1."""

    first: str
    second: str
    difference: Interval
    """Second minus first, with a 95 % interval that resamples tasks."""
    p: float
    """Of a sign-flip test over tasks, adjusted for the number of pairs (Holm)."""
    better: tuple[Task, ...]
    """Tasks that the second solves more often."""
    worse: tuple[Task, ...]
    """Tasks that the second solves less often."""

    @property
    def verdict(self) -> str:
        """Whether the difference is real, in words."""
        if not self.p < 1 - LEVEL:
            return "no significant difference"
        return f"{self.second if self.difference.value > 0 else self.first} is better"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every pair of some evaluations; prints as a table, in notebooks too."""

    reports: tuple[Report, ...]
    names: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def grid(self) -> Grid:
        """The table."""
        panel = self.reports[0].panel
        rows = tuple(
            (
                f"{pair.first} -> {pair.second}",
                _signed(pair.difference),
                f"{pair.p:.3g}",
                f"{len(pair.better)} / {len(pair.worse)}",
                pair.verdict,
            )
            for pair in self.pairs
        )
        levels = (
            f"{name}: pass@1 {report.pass_at(1)}"
            for name, report in zip(self.names, self.reports, strict=True)
        )
        return Grid(
            title=f"{panel.env} {panel.split}: {len(panel)} tasks, panel {panel.digest[:12]}",
            columns=("pair", "difference of pass@1", "p (Holm)", "better / worse", "verdict"),
            rows=rows,
            notes=(
                *levels,
                *self._settings(),
                "Brackets: 95 % intervals, tasks resampled, paired. p: sign-flip test over tasks, "
                "adjusted for the number of pairs.",
            ),
        )

    def _settings(self) -> list[str]:
        first, *others = self.reports
        return [
            f"Settings of {name} that differ from {self.names[0]}: "
            + ", ".join(f"{key} {new} instead of {old}" for key, old, new in changes)
            for name, other in zip(self.names[1:], others, strict=True)
            if (changes := setting_changes(first, other))
        ]

    def __str__(self) -> str:
        """The table as plain text."""
        return self.grid.text()

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return self.grid.html()


def compare_reports(reports: Sequence[Report], names: Sequence[str] = ()) -> Comparison:
    """Compare evaluations of one panel pair by pair.

    Args:
        reports: Two or more.
        names: What to call them; unset: their labels, numbered where two are equal.

    Raises:
        ConfigError: There are fewer than two, or they are on different panels.
    """
    if len(reports) < 2:
        raise ConfigError(f"a comparison needs at least 2 evaluations, got {len(reports)}")
    for other in reports[1:]:
        check_panels(reports[0].panel, other.panel)
    labels = tuple(names) or _distinct([report.spec.label for report in reports])
    found = [_pair(*pair) for pair in combinations(zip(labels, reports, strict=True), 2)]
    adjusted = holm([pair.p for pair in found])
    pairs = tuple(replace(pair, p=p) for pair, p in zip(found, adjusted, strict=True))
    return Comparison(tuple(reports), labels, pairs)


def _pair(one: tuple[str, Report], other: tuple[str, Report]) -> Pair:
    (first, before), (second, after) = one, other
    measure = passes(1)
    old = {result.task: measure(result) for result in before.tasks}
    changes = {new.task: measure(new) - old[new.task] for new in after.tasks}
    known = {task: change for task, change in changes.items() if change == change}
    return Pair(
        first=first,
        second=second,
        difference=paired_difference(before, after, measure, (0.0, 1.0)).difference,
        p=sign_flip_p(list(known.values()), np.random.default_rng(0)),
        better=tuple(task for task, change in known.items() if change > 0),
        worse=tuple(task for task, change in known.items() if change < 0),
    )


def _distinct(labels: list[str]) -> tuple[str, ...]:
    repeated = {label for label in labels if labels.count(label) > 1}
    return tuple(
        f"{label} ({number + 1})" if label in repeated else label
        for number, label in enumerate(labels)
    )


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
