"""The figure of `scripts/reproduce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from reproduce_study import Study

from agentgym.evaluation.plots import smooth
from agentgym.evaluation.stats.intervals import Floats
from agentgym.utils.jsonl import write_atomic

LOOKS = (
    {"color": "#0072B2", "linewidth": 2.2},
    {"color": "#D55E00", "linewidth": 1.6, "linestyle": "--"},
    {"color": "#555555", "linewidth": 1.6},
    {"color": "#009E73", "linewidth": 1.6, "linestyle": ":"},
    {"color": "#CC79A7", "linewidth": 1.6, "linestyle": "-."},
)
"""The first line of a panel, the second, and so on; apart for any colour vision."""


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
