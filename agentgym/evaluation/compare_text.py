"""A comparison in words and tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agentgym.evaluation.measures import UNIT, Measure
from agentgym.evaluation.paired import setting_changes
from agentgym.evaluation.tables import Grid

if TYPE_CHECKING:
    from agentgym.evaluation.compare import Comparison, Pair

LISTED = 12
"""Flipped tasks that a table lists."""


def sentence(pair: Pair, measure: Measure, pairs: int) -> str:
    """What was found about a pair: whether the difference is real, and how large it may be."""
    value, low, high = pair.difference
    unit = " points" if measure.support == UNIT else ""
    scale = 100 if measure.support == UNIT else 1
    reach = f"between {scale * low:+.1f} and {scale * high:+.1f}{unit} with 95 % confidence"
    adjusted = f", adjusted for {pairs} pairs" if pairs > 1 else ""
    p = f"p = {pair.p:.3f}" if pair.p >= 0.001 else "p < 0.001"
    levels = f"{measure.name} {pair.levels[1]:.2f} against {pair.levels[0]:.2f}"
    change = f"{levels}, {scale * value:+.1f}{unit}, {reach}; {p}{adjusted}"
    if pair.real:
        more = "higher" if value > 0 else "lower"
        found = f"Real: {pair.second} is {more} than {pair.first} ({change})."
    else:
        found = f"Not established: {pair.second} may equal {pair.first} ({change})."
        if high == high and high > low:
            visible = scale * (high - low) / 2
            found += f" Differences below about {visible:.1f}{unit} are not visible here."
    return f"{found} {_scope(pair)}"


def _scope(pair: Pair) -> str:
    if pair.over_seeds:
        first, second = pair.seeds
        return f"This holds for training again ({first} and {second} seeds) on tasks like these."
    if max(pair.seeds) > 1:
        return "One side has one training seed, so this holds for these checkpoints alone."
    return "This holds for these checkpoints on tasks like these, not for training again."


def comparison_grid(comparison: Comparison) -> Grid:
    """A row per pair, and the notes that the reader needs."""
    measure, first = comparison.measure, comparison.reports[0]
    panel, tasks = first.panel, len(first.tasks)
    rows = tuple(
        (
            f"{pair.first} -> {pair.second}",
            pair.difference.signed,
            f"{pair.p:.3g}",
            f"{len(pair.better)} / {len(pair.worse)}",
        )
        for pair in comparison.pairs
    )
    seeds = any(pair.over_seeds for pair in comparison.pairs)
    how = "tasks and training seeds" if seeds else "tasks"
    test = "t-test over tasks and seeds" if seeds else "sign-flip test over tasks"
    return Grid(
        title=f"{panel.env} {panel.split}: {tasks} tasks, panel {panel.digest[:12]}",
        columns=("pair", f"difference of {measure.name}", "p (Holm)", "better / worse"),
        rows=rows,
        notes=(
            *(line for report in comparison.reports for line in report.notes),
            *([comparison.note] if comparison.note else ()),
            *(_level(comparison, place) for place in range(len(comparison.arms))),
            *_settings(comparison),
            f"Brackets: 95 % intervals over {how}, paired by task. p: {test}, adjusted for the "
            f"number of pairs.",
        ),
    )


def flips_grid(pair: Pair) -> Grid:
    """The tasks that one of a pair won and the other lost, with their types."""
    rows = tuple(
        (flip.task.id, flip.task_type, f"{flip.first:.2f}", f"{flip.second:.2f}")
        for flip in pair.flips[:LISTED]
    )
    more = len(pair.flips) - LISTED
    gained = Counter(flip.task_type for flip in pair.flips if flip.second > flip.first)
    lost = Counter(flip.task_type for flip in pair.flips if flip.second < flip.first)
    kinds = ", ".join(
        f"{kind or 'no type'} +{gained[kind]} -{lost[kind]}" for kind in sorted(gained | lost)
    )
    return Grid(
        title=f"Flipped: {gained.total()} won only by {pair.second}, {lost.total()} only by "
        f"{pair.first}",
        columns=("task", "type", pair.first, pair.second),
        rows=rows,
        notes=(
            *([f"and {more} more"] if more > 0 else ()),
            f"By type: {kinds}. Won: more than half of the episodes; lost: less than half.",
        ),
    )


def _level(comparison: Comparison, place: int) -> str:
    arm, measure = comparison.arms[place], comparison.measure
    levels = [report.mean(measure) for report in arm.reports]
    if len(levels) == 1:
        return f"{arm.name}: {measure.name} {levels[0]}"
    each = " ".join(f"{level.value:.2f}" for level in levels)
    mean = sum(level.value for level in levels) / len(levels)
    return f"{arm.name}: {measure.name} {mean:.2f}, by seed {each}"


def _settings(comparison: Comparison) -> list[str]:
    first, *others = comparison.arms
    lines = []
    for other in others:
        changes = setting_changes(first.first, other.first)
        seeded = len(other.reports) > 1 or len(first.reports) > 1
        shown = [change for change in changes if not (seeded and change[0] == "seed")]
        if shown:
            text = ", ".join(f"{key} {new} instead of {old}" for key, old, new in shown)
            lines.append(f"Settings of {other.name} that differ from {first.name}: {text}")
    return lines
