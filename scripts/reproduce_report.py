"""The table and the figure of `scripts/reproduce`, from whatever runs are done.

Axes: S training seeds, M tasks of the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.files import read_report
from agentgym.evaluation.measures import passes
from agentgym.evaluation.plots import smooth
from agentgym.evaluation.stats.intervals import Floats, Interval
from agentgym.evaluation.stats.seeds import bootstrap_over_seeds, gain_over_seeds
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.utils.jsonl import write_atomic

MARKS = ("<!-- reproduce -->", "<!-- /reproduce -->")
"""The lines of a README between which table and figure go."""
LOOKS = (
    {"color": "#0072B2", "linewidth": 2.2},
    {"color": "#D55E00", "linewidth": 1.6, "linestyle": "--"},
    {"color": "#555555", "linewidth": 1.6},
    {"color": "#009E73", "linewidth": 1.6, "linestyle": ":"},
    {"color": "#CC79A7", "linewidth": 1.6, "linestyle": "-."},
)
"""The first line of a panel, the second, and so on; apart for any colour vision."""


class Study(NamedTuple):
    """What was planned."""

    roots: Mapping[str, Sequence[Path]]
    """Run folders of each arm, by seed."""
    against: Mapping[str, tuple[str, ...]]
    """What each is compared with."""
    panels: Mapping[str, tuple[str, ...]]
    """What is drawn together."""

    def finished(self, arm: str) -> list[int]:
        """Seeds with which an arm is done; none of an arm that was not planned."""
        roots = self.roots.get(arm, ())
        return [seed for seed, root in enumerate(roots) if RunFolder(root).table.exists()]

    def success(self, arm: str, seeds: Sequence[int], name: str = "after") -> Floats:
        """Share of the episodes of each task that were won, (S, M)."""
        once = passes(1)
        reports = [read_report(RunFolder(self.roots[arm][seed]).evaluation(name)) for seed in seeds]
        return np.array([[once(task) for task in report.tasks] for report in reports])

    def metrics(self, arm: str) -> list[list[dict[str, float]]]:
        """Lines of each finished run."""
        return [read_metrics(RunFolder(self.roots[arm][s]).metrics) for s in self.finished(arm)]


def write_report(study: Study, out: Path) -> None:
    """Write OUT/table.md, and OUT/curves.png once a run is done."""
    write_atomic(out / "table.md", table(study))
    if any(study.finished(arm) for arm in study.roots):
        draw(study, out / "curves.png")


def table(study: Study) -> str:
    """One row per arm, and one more for each further arm it is compared with."""
    lines = [
        "| arm | seeds | success | gain over warm-up | compared with | difference | "
        "t over seeds | steps | tokens written |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in study.roots:
        seeds = study.finished(arm)
        if not seeds:
            lines.append(f"| {arm} | 0 | | | | | | | |")
            continue
        after, before = study.success(arm, seeds), study.success(arm, seeds, "before")
        last = [lines_[-1] for lines_ in study.metrics(arm)]
        own = [arm, str(len(seeds)), str(_over(after)), _signed(_over(after - before))]
        cost = [
            f"{np.mean([line['step'] for line in last]):.1f}",
            f"{np.mean([line['spent/tokens'] for line in last]) / 1000:.0f}k",
        ]
        for other in study.against[arm] or ("",):
            cells = [*own, *_compared(study, arm, other), *cost]
            lines.append(f"| {' | '.join(cells)} |")
            own, cost = [""] * len(own), [""] * len(cost)
    return "\n".join([*lines, "", _legend(study), ""])


def _compared(study: Study, arm: str, other: str) -> list[str]:
    """Name of the other, paired difference, and its interval over seeds alone."""
    seeds = [seed for seed in study.finished(arm) if seed in study.finished(other)]
    if not seeds:
        return [other, "", ""]
    change = study.success(arm, seeds) - study.success(other, seeds)
    over = "" if len(seeds) < 2 else _signed(gain_over_seeds(change.mean(axis=1).tolist()))
    return [other, _signed(_over(change)), over]


def _over(values: Floats) -> Interval:
    return bootstrap_over_seeds(values, np.random.default_rng(0))


def _signed(interval: Interval) -> str:
    value, low, high = interval
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _legend(study: Study) -> str:
    arm = next((arm for arm in study.roots if study.finished(arm)), None)
    if arm is None:
        return "No run is done yet."
    seed = study.finished(arm)[0]
    report = read_report(RunFolder(study.roots[arm][seed]).evaluation("after"))
    turns = np.mean([lines[-1]["spent/turns"] for a in study.roots for lines in study.metrics(a)])
    return (
        f"{report.panel.env}, {report.panel.split}: {len(report.tasks)} tasks x "
        f"{report.episodes} episodes, last checkpoint, {turns:,.0f} turns of training. Success is "
        f"pass@1. Brackets: 95 % intervals; differences are paired by seed and task, which are "
        f"both resampled (too narrow for few seeds); t over seeds takes the panel as given."
    )


def draw(study: Study, path: Path) -> None:
    """Success above and entropy below, over turns in the world; a column per family."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        title: kept
        for title, arms in study.panels.items()
        if (kept := [arm for arm in arms if study.finished(arm)])
    }
    figure = Figure(figsize=(1 + 3.1 * len(panels), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False)
    names = {
        "episode/success": "success in training",
        "policy/entropy": "entropy (nats per token)",
    }
    for column, (title, arms) in enumerate(panels.items()):
        for row, name in enumerate(names):
            for arm, look in zip(arms, LOOKS, strict=False):
                turns, value = course(study.metrics(arm), name)
                axes[row, column].plot(turns, value, label=arm, **look)
            axes[row, column].grid(axis="y", color="#DDDDDD", linewidth=0.8)
            axes[row, column].spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(title)
        axes[0, column].legend(frameon=False, fontsize=8)
        axes[1, column].set_xlabel("turns in the world")
    for row, label in enumerate(names.values()):
        axes[row, 0].set_ylabel(label)
        axes[row, 0].set_ylim(bottom=0)
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    write_atomic(path, picture.getvalue())


def course(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> tuple[Floats, Floats]:
    """A metric over turns in the world: smoothed over five steps, then the mean over seeds."""
    curves: list[tuple[Any, Any]] = []
    for lines in runs:
        known = [line for line in lines if name in line]
        turns = np.array([line["spent/turns"] for line in known])
        curves.append((turns, smooth(np.array([line[name] for line in known]), 5)))
    start, end = max(turns[0] for turns, _ in curves), min(turns[-1] for turns, _ in curves)
    grid = np.linspace(start, end, 60)
    return grid, np.mean([np.interp(grid, turns, value) for turns, value in curves], axis=0)


def write_readme(out: Path, readme: Path) -> None:
    """Put the table and the figure between the marks of a README; the figure lies beside it.

    Raises:
        ConfigError: The file has no such marks.
    """
    text = readme.read_text(encoding="utf-8")
    if not all(mark in text for mark in MARKS):
        raise ConfigError(f"{readme} lacks the lines {' and '.join(MARKS)}: add them")
    head, rest = text.split(MARKS[0], 1)
    tail = rest.split(MARKS[1], 1)[1]
    picture = readme.parent / "reproduce.png"
    write_atomic(picture, (out / "curves.png").read_bytes())
    table = (out / "table.md").read_text(encoding="utf-8")
    middle = f"{table}\n![success and entropy over turns]({picture.name})\n"
    write_atomic(readme, f"{head}{MARKS[0]}\n{middle}{MARKS[1]}{tail}")
