"""Reports as tables: one evaluation, or two side by side with their difference."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agentgym.evaluation.paired import paired_difference, setting_changes
from agentgym.evaluation.tables import Grid
from agentgym.evaluation.task_result import Measure, passes, passes_all
from agentgym.types import Ending

if TYPE_CHECKING:
    from agentgym.evaluation.report import Report


def render(
    report: Report,
    before: Report | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    width: int = 100,
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
    rows = [
        (name, *_cells(report, before, measure, support))
        for name, measure, support in _lines(report)
    ]
    shares = [side.valid_share for side in (before, report) if side is not None]
    blank = () if before is None else ("",)
    rows.append(("valid actions", *(f"{share:.2f}" for share in shares), *blank))
    rule = len(rows) - 1
    for kind in report.task_types if len(report.task_types) > 1 else ():
        part = report.only(kind)
        earlier = None if before is None else before.only(kind)
        cells = _cells(part, earlier, passes(1), (0.0, 1.0))
        rows.append((f"pass@1 {kind} ({len(part.tasks)})", *cells))
    return Grid(
        title=f"{panel.env} {panel.split}: {len(panel)} tasks, panel {panel.digest[:12]}",
        columns=("measure", *labels),
        rows=tuple(rows),
        rule_after=rule,
        notes=tuple(_notes(report, before, names)),
    )


def _lines(report: Report) -> list[tuple[str, Measure, tuple[float, float] | None]]:
    unit = (0.0, 1.0)
    lines: list[tuple[str, Measure, tuple[float, float] | None]] = [
        (f"pass@{k}", passes(k), unit) for k in report.ks
    ]
    if len(report.ks) > 1:
        lines.append((f"pass^{report.ks[-1]}", passes_all(report.ks[-1]), unit))
    lines.append(("score", lambda task: task.score, unit))
    lines.append(("turns", lambda task: task.turns, None))
    return lines


def _cells(
    report: Report, before: Report | None, measure: Measure, support: tuple[float, float] | None
) -> list[str]:
    if before is None:
        return [str(report.mean(measure, support))]
    gain = paired_difference(before, report, measure, support)
    value, low, high = gain.difference
    return [str(gain.before), str(gain.after), f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"]


def _notes(report: Report, before: Report | None, names: tuple[str, str]) -> list[str]:
    notes = ["Brackets: 95 % intervals, tasks resampled" + (", paired." if before else ".")]
    sides = (
        [("", report)] if before is None else [(f"{names[0]}: ", before), (f"{names[1]}: ", report)]
    )
    for name, side in sides:
        notes.append(f"{name}Episodes: {_counts(side.endings)}.")
        if side.failed_attempts:
            notes.append(
                f"{name}Failed attempts (environment errors): {_counts(side.failed_attempts)}."
            )
        if side.lost:
            short = len(side.tasks) - side.with_at_least(side.ks[-1])
            notes.append(
                f"{name}{side.lost} episodes were lost to environment errors and are not scored; "
                f"{short} tasks have too few episodes for pass@{side.ks[-1]}."
            )
    if before is not None:
        changed = [f"{name} {old} to {new}" for name, old, new in setting_changes(before, report)]
        if changed:
            notes.append(f"The settings differ, {names[0]} to {names[1]}: {', '.join(changed)}.")
    return notes


def _counts(ends: Counter[Ending]) -> str:
    """Such as ``success 3, failure 1``."""
    return ", ".join(f"{ending} {ends[ending]}" for ending in Ending if ends[ending]) or "none"
