"""Plot of a run: training success, and pass@k on held-out tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agentgym.errors import ConfigError, MissingExtra, did_you_mean
from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.intervals import Floats
from agentgym.utils.jsonl import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEFORE, AFTER, DURING, INK = "#D55E00", "#0072B2", "#009E73", "#333333"
"""Vermillion, blue and green of the palette by Okabe and Ito, apart for any colour vision."""

SUCCESS = "episode/success"
"""Metric drawn as training success, in [0, 1]."""


def plot_run(
    metrics: Sequence[Mapping[str, float | int]],
    before: Report,
    after: Report,
    path: Path,
    *,
    success: str = SUCCESS,
) -> None:
    """Plot training success over steps, and pass@k before and after training.

    Args:
        metrics: Lines of a metrics file, each with ``step``; lines without ``success`` are
            skipped.
        before: Evaluation of the policy that training started from.
        after: Evaluation of the trained policy on the same panel.
        path: Output file; its suffix selects PNG, PDF or SVG.
        success: Name of the metric that holds training success, in [0, 1].

    Raises:
        ConfigError: No line holds ``success``, or the reports are on different panels.
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise MissingExtra("plots need matplotlib: pip install 'agentic-gym[train]'") from problem
    if before.panel != after.panel:
        raise ConfigError("before and after were played on different panels and cannot be compared")
    steps, values = _series(metrics, success)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _training(left, steps, values)
    _passes(right, before, after)
    figure.suptitle(after.panel.env, fontsize=12, color=INK)
    picture = BytesIO()
    figure.savefig(picture, format=path.suffix[1:] or "png", dpi=160)
    write_atomic(path, picture.getvalue())


def smooth(values: Floats, width: int) -> Floats:
    """Centred moving average over ``width`` steps (odd); windows shrink at both ends."""
    half = width // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    start, end = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    means: Floats = (total[end] - total[start]) / (end - start)
    return means


def _series(metrics: Sequence[Mapping[str, float | int]], name: str) -> tuple[Floats, Floats]:
    found = [(line["step"], line[name]) for line in metrics if name in line]
    found = [(step, value) for step, value in found if not math.isnan(value)]
    if not found:
        known = {key for line in metrics for key in line}
        raise ConfigError(f"no metric {name!r} to draw.{did_you_mean(name, sorted(known))}")
    steps, values = np.array(found, dtype=np.float64).T
    return steps, values


def _training(axes: Axes, steps: Floats, values: Floats) -> None:
    from matplotlib.ticker import MaxNLocator

    width = max(1, len(values) // 10) | 1
    if width == 1:
        axes.plot(steps, values, color=DURING, linewidth=1.6, marker="o", markersize=4)
    else:
        axes.plot(steps, values, color=DURING, alpha=0.3, linewidth=1, label="each step")
        label = f"mean over {width} steps"
        axes.plot(steps, smooth(values, width), color=DURING, linewidth=2.2, label=label)
        axes.legend(frameon=False, loc="best")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(
        title="During training",
        xlabel="training step",
        ylabel="success rate (share of episodes)",
    )
    _finish(axes)


def _passes(axes: Axes, before: Report, after: Report) -> None:
    ks = [
        k for k in after.ks if k in before.ks and before.with_at_least(k) and after.with_at_least(k)
    ]
    place = np.arange(len(ks), dtype=np.float64)
    sides = [(before, BEFORE, "o", "before training"), (after, AFTER, "s", "after training")]
    for shift, (report, colour, marker, label) in zip((-0.07, 0.07), sides, strict=True):
        found = [report.pass_at(k) for k in ks]
        value = np.array([interval.value for interval in found])
        reach = np.array([[i.value - i.low for i in found], [i.high - i.value for i in found]])
        axes.errorbar(
            place + shift,
            value,
            yerr=reach,
            color=colour,
            marker=marker,
            markersize=6,
            linewidth=1.6,
            capsize=4,
            label=label,
        )
    axes.set_xticks(place, [str(k) for k in ks])
    axes.set_xlim(-0.5, len(ks) - 0.5)
    axes.set(
        title=f"Before and after: {after.panel.split} panel, {len(after.panel)} tasks",
        xlabel="k (attempts per task)",
        ylabel="pass@k (share of tasks) with 95 % interval",
    )
    axes.legend(frameon=False, loc="best")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
