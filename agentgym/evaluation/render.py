"""Reports as tables: one evaluation, two side by side with their difference, or several in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentgym.evaluation.cost import clock, short
from agentgym.evaluation.measures import SCORE, TURNS, Measure, best, passes, passes_all
from agentgym.evaluation.paired import paired_difference, setting_changes
from agentgym.evaluation.tables import Grid
from agentgym.types import Ending

if TYPE_CHECKING:
    from agentgym.evaluation.report import Report

WIDTH = 80
"""Characters per line of a table."""


def render(
    report: Report,
    before: Report | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    width: int = WIDTH,
) -> str:
    """A report as a plain-text table; with ``before``, also the paired difference.

    Args:
        report: The report.
        before: An earlier one on the same panel.
        names: Columns of the two.
        width: Characters per line.

    Raises:
        ConfigError: The two reports are on different panels.
    """
    return grid(report, before, names).text(width)


def grid(
    report: Report, before: Report | None = None, names: tuple[str, str] = ("before", "after")
) -> Grid:
    """The rows of ``render``."""
    panel = report.panel
    labels = (report.spec.label,) if before is None else (*names, "difference")
    rows = [(measure.name, *_cells(report, before, measure)) for measure in _lines(report)]
    sides = [side for side in (before, report) if side is not None]
    blank = () if before is None else ("",)
    shares = (f"{side.valid_share:.2f}" for side in sides)
    rows.append(("valid actions", *shares, *blank))
    rule = len(rows) - 1
    for kind in report.task_types if len(report.task_types) > 1 else ():
        part = report.only(kind)
        earlier = None if before is None else before.only(kind)
        rows.append((f"pass@1 {kind} ({len(part.tasks)})", *_cells(part, earlier, passes(1))))
    return Grid(
        title=f"{panel.env} {panel.split}: {len(panel)} tasks, panel {panel.digest[:12]}",
        columns=("measure", *labels),
        rows=tuple(rows),
        rule_after=rule,
        notes=tuple(_notes(report, before, names)),
    )


def types_grid(report: Report) -> Grid:
    """A row per task type: tasks, two measures of ``_columns``, turns."""
    measures = _columns([report])
    rows = []
    for kind in report.task_types:
        part = report.only(kind)
        cells = (str(part.mean(measure)) for measure in measures)
        rows.append((kind or "(none)", str(len(part.tasks)), *cells, f"{part.turns().value:.1f}"))
    return Grid(
        title=f"{report.panel.env} {report.panel.split} by task type",
        columns=("task type", "tasks", *(measure.name for measure in measures), "turns"),
        rows=tuple(rows),
    )


def summary(reports: Sequence[Report]) -> Grid:
    """A row per evaluation: panel, tasks, two measures of ``_columns``."""
    measures = _columns(reports)
    rows = []
    for report in reports:
        cells = (str(report.mean(measure)) for measure in measures)
        size = f"{len(report.tasks)}x{report.episodes}"
        rows.append((_row_name(report, reports), size, *cells))
    return Grid(
        title=f"{len(reports)} evaluations",
        columns=("panel", "tasks", *(measure.name for measure in measures)),
        rows=tuple(rows),
        notes=("Tasks: times episodes of each. Brackets: 95 % intervals over tasks.",),
    )


def cost_summary(reports: Sequence[Report]) -> Grid:
    """A row per evaluation: tokens, turns, tool calls, time, dollars where prices are known."""
    priced = any(any(report.prices) or report.cost.charged for report in reports)
    rows = []
    for report in reports:
        cost = report.cost
        row = [short(cost.episodes), short(cost.prompt_tokens), short(cost.completion_tokens)]
        row += [short(cost.turns), short(cost.tool_calls), clock(cost.seconds)]
        row += [f"${cost.dollars(report.prices):,.2f}"] if priced else []
        rows.append((_row_name(report, reports), *row))
    columns = ("episodes", "tokens in", "out", "turns", "calls", "seconds")
    return Grid(
        title="Cost",
        columns=("panel", *columns, *(("dollars",) if priced else ())),
        rows=tuple(rows),
    )


def _columns(reports: Sequence[Report]) -> list[Measure]:
    """pass@k for the smallest k, and for the largest that all have, or the score where graded."""
    smallest = max(report.ks[0] for report in reports)
    if any(report.graded for report in reports):
        return [passes(smallest), SCORE]
    largest = min(report.ks[-1] for report in reports)
    return [passes(k) for k in dict.fromkeys((smallest, max(smallest, largest)))]


def _row_name(report: Report, among: Sequence[Report]) -> str:
    panel = f"{report.panel.env.rpartition('/')[2]} {report.panel.split}"
    models = {each.spec.label for each in among}
    return panel if len(models) == 1 else f"{report.spec.label} {panel}"


def _lines(report: Report) -> list[Measure]:
    several = [k for k in report.ks if k > 1]
    shown = several if report.chosen_ks else several[-1:]
    lines = [*map(passes, report.ks), *map(passes_all, shown), SCORE]
    if report.graded:
        lines += map(best, shown)
    return [*lines, TURNS]


def _cells(report: Report, before: Report | None, measure: Measure) -> list[str]:
    if before is None:
        return [str(report.mean(measure))]
    gain = paired_difference(before, report, measure)
    return [str(gain.before), str(gain.after), gain.difference.signed]


def _notes(report: Report, before: Report | None, names: tuple[str, str]) -> list[str]:
    how = "over tasks" if report.method == "analytic" else "over resampled tasks"
    notes = [f"Brackets: 95 % intervals {how}{', paired' if before else ''}."]
    if report.episodes > 1 and 1 in report.ks:
        count = report.episodes
        notes.append(f"pass@1 and score are means of all {count} episodes per task: avg@{count}.")
    sides = (
        [("", report)] if before is None else [(f"{names[0]}: ", before), (f"{names[1]}: ", report)]
    )
    for name, side in sides:
        notes.extend(side.notes)
        notes.append(f"{name}Episodes: {counts(side.endings)}.")
        if side.failed_attempts:
            notes.append(
                f"{name}Failed attempts (environment errors): {counts(side.failed_attempts)}."
            )
        if side.lost:
            missing = len(side.tasks) - side.with_at_least(side.ks[-1])
            notes.append(
                f"{name}{side.lost} episodes were lost to environment errors and are not scored; "
                f"{missing} tasks have too few episodes for pass@{side.ks[-1]}."
            )
    if before is not None:
        changed = [f"{name} {old} to {new}" for name, old, new in setting_changes(before, report)]
        if changed:
            notes.append(f"The settings differ, {names[0]} to {names[1]}: {', '.join(changed)}.")
    return notes


def counts(ends: Counter[Ending]) -> str:
    """Such as ``success 3, failure 1``."""
    return ", ".join(f"{ending} {ends[ending]}" for ending in Ending if ends[ending]) or "none"
