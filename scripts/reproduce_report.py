"""The table and the figure of `scripts/reproduce`, from whatever runs are done.

Axes: S training seeds, M tasks of the panel.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from reproduce_figure import draw
from reproduce_records import EFFECTS, Record
from reproduce_study import Study

from agentgym.errors import ConfigError
from agentgym.evaluation.stats.intervals import Floats, Interval, mean_interval
from agentgym.evaluation.stats.seeds import bootstrap_over_seeds, gain_over_seeds
from agentgym.evaluation.stats.significance import holm
from agentgym.evaluation.stats.student import student_p
from agentgym.utils.jsonl import write_atomic

MARKS = ("<!-- reproduce {} -->", "<!-- /reproduce {} -->")
"""The lines of a README between which table and figure of the folder of this name go."""


class Comparison(NamedTuple):
    """An arm against another, paired by seed and task."""

    arm: str
    other: str
    both: Interval
    """Seeds and tasks resampled."""
    seeds: Interval
    """Student's t over seeds, on the panel as it is."""
    p: float
    """Two-sided, over seeds, as it is; NaN where all seeds agree to the last digit."""


def comparisons(study: Study) -> dict[tuple[str, str], Comparison]:
    """All that can be made: of arms that share two seeds or more."""
    found = {}
    for arm, others in study.against.items():
        for other in others:
            seeds = study.shared(arm, other)
            if len(seeds) >= 2:
                change = study.success(arm, seeds) - study.success(other, seeds)
                found[arm, other] = compare(arm, other, change)
    return found


def compare(arm: str, other: str, change: Floats) -> Comparison:
    """Of paired differences by seed and task, (S, M)."""
    by_seed = change.mean(axis=1)
    error = by_seed.std(ddof=1) / math.sqrt(len(by_seed))
    p = student_p(by_seed.mean() / error, len(by_seed) - 1) if error else math.nan
    return Comparison(arm, other, over(change), gain_over_seeds(by_seed.tolist()), p)


def write_report(study: Study, out: Path) -> None:
    """Write OUT/table.md, and OUT/curves.png once a run is done."""
    parts = [table(study), effects(study), sweep_table(study)]
    write_atomic(out / "table.md", "\n".join(part for part in parts if part))
    if any(study.finished(arm) for arm in study.found):
        draw(study, out / "curves.png")


def table(study: Study) -> str:
    """One row per arm, and one more for each further arm it is compared with."""
    lines = [
        "| arm | seeds | rate | success | gain over warm-up | compared with | difference | "
        "t over seeds | p, Holm | steps | tokens written |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    compared = comparisons(study)
    adjusted = dict(zip(compared, holm_of([c.p for c in compared.values()]), strict=True))
    for arm in study.found:
        seeds = study.finished(arm)
        count = (
            f"{len(seeds)}, {stopped} stopped" if (stopped := study.stopped[arm]) else len(seeds)
        )
        if not seeds:
            lines.append(f"| {arm} | {count} |{' |' * 9}")
            continue
        after, before = study.success(arm, seeds), study.success(arm, seeds, "before")
        last = [lines_[-1] for lines_ in study.metrics(arm)]
        own = [arm, str(count), f"{study.rates[arm]:g}", str(success(after))]
        own.append(signed(over(after - before)))
        cost = [
            f"{np.mean([line['step'] for line in last]):.1f}",
            f"{np.mean([line['spent/tokens'] for line in last]) / 1000:.0f}k",
        ]
        for other in study.against[arm] or ("",):
            cells = [*own, other, "", "", "", *cost]
            if found := compared.get((arm, other)):
                cells[6:9] = [signed(found.both), signed(found.seeds), _p(adjusted[arm, other])]
            lines.append(f"| {' | '.join(cells)} |")
            own, cost = [""] * len(own), [""] * len(cost)
    return "\n".join([*lines, "", _legend(study), ""])


def holm_of(p_values: Sequence[float]) -> list[float]:
    """Adjusted for the number of those that are known; NaN stays NaN."""
    known = [p for p in p_values if not math.isnan(p)]
    adjusted = iter(holm(known))
    return [p if math.isnan(p) else next(adjusted) for p in p_values]


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def over(values: Floats) -> Interval:
    """Mean over seeds and tasks, (S, M), both resampled."""
    return bootstrap_over_seeds(values, np.random.default_rng(0))


def success(shares: Floats) -> Interval:
    """The same of shares of won episodes: where all are alike, other tasks may still differ."""
    alike = bool(np.ptp(shares) == 0)
    return mean_interval(shares.mean(0), (0.0, 1.0)) if alike else over(shares)


def signed(interval: Interval) -> str:
    """A difference in a table: ``+0.07 [+0.02, +0.12]``."""
    value, low, high = interval
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _legend(study: Study) -> str:
    arm = next((arm for arm in study.found if study.finished(arm)), None)
    if arm is None:
        return "No run is done yet."
    seed = study.finished(arm)[0]
    run = study.found[arm][seed]
    turns = np.mean([lines[-1]["spent/turns"] for a in study.found for lines in study.metrics(a)])
    return (
        f"{study.env}, {study.split}: {len(run.after)} tasks x {run.episodes} episodes, last "
        f"checkpoint, {turns:,.0f} turns of training. Success is pass@1. Brackets: 95 % "
        f"intervals; differences are paired by seed and task, which are both resampled (too "
        f"narrow for few seeds); t over seeds takes the panel as given, and p is of that t, "
        f"adjusted for all {len(comparisons(study))} comparisons."
    )


def effects(study: Study) -> str:
    """What the mechanisms did: means over the steps of all runs of an arm."""
    lines = [
        f"| arm | {' | '.join(EFFECTS)} | norms in parts of the surrogate's |",
        f"|---|{'---|' * len(EFFECTS)}---|",
    ]
    for arm in study.found:
        if steps := [line for run in study.metrics(arm) for line in run]:
            cells = [_mean_of(steps, ending) for ending in EFFECTS.values()]
            lines.append(f"| {arm} | {' | '.join(cells)} | {_norms(steps)} |")
    return "\n".join([*lines, ""]) if len(lines) > 2 else ""


def _mean_of(steps: Sequence[Mapping[str, float]], ending: str) -> str:
    values = [value for line in steps for name, value in line.items() if name.endswith(ending)]
    return f"{np.mean(values):.2g}" if values else ""


def _norms(steps: Sequence[Mapping[str, float]]) -> str:
    """Mean gradient norm of each term in parts of the surrogate's."""
    found: dict[str, list[float]] = {}
    for line in steps:
        for name, value in line.items():
            update, inside, term = name.rpartition("/norm/")
            surrogate = line.get(f"{update}/norm/surrogate", 0.0)
            if inside and term != "surrogate" and surrogate:
                found.setdefault(term, []).append(value / surrogate)
    return ", ".join(f"{term} {np.mean(values):.2g}" for term, values in found.items())


def sweep_table(study: Study) -> str:
    """Success on the valid split at each learning rate; the chosen ones are bold."""
    rates = sorted({rate for trials in study.sweep.values() for rate in trials})
    if not rates:
        return ""
    lines = [
        f"| arm, valid split | {' | '.join(f'{rate:g}' for rate in rates)} |",
        f"|---|{'---|' * len(rates)}",
    ]
    for arm, trials in study.sweep.items():
        cells = [_cell(trials.get(rate), chosen=rate == study.rates[arm]) for rate in rates]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(trial: Record | None, *, chosen: bool) -> str:
    if trial is None or not trial.after:
        return ""
    value = f"{np.mean(trial.after):.2f}"
    return f"**{value}**" if chosen else value


def write_readme(out: Path, readme: Path) -> None:
    """Put the table between the marks of a README, and the figure, as a link to where it lies.

    Raises:
        ConfigError: The file has no such marks.
    """
    text = readme.read_text(encoding="utf-8")
    begin, end = (mark.format(out.resolve().name) for mark in MARKS)
    if not (begin in text and end in text):
        raise ConfigError(f"{readme} lacks the lines {begin} and {end}: add them")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    picture = Path(os.path.relpath(out / "curves.png", readme.parent)).as_posix()
    table = (out / "table.md").read_text(encoding="utf-8")
    middle = f"{table}\n![success and entropy over turns]({picture})\n"
    write_atomic(readme, f"{head}{begin}\n{middle}{end}{tail}")
