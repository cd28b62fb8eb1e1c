"""Success over steps, environment steps and wall time, of one run or of arms of runs."""

from __future__ import annotations

import math

import numpy as np

from agentgym.evaluation.plots import SUCCESS, smooth
from agentgym.evaluation.stats.intervals import Floats
from agentgym.evaluation.stats.student import student_t
from agentgym.run_report.run import AXES, Arm, Run
from agentgym.run_report.svg import Line, plot

Z = 1.959963984540054
"""95 % quantile of the normal distribution, two-sided."""
GRID = 120
"""Points at which runs of different lengths are averaged."""


def success_plots(arms: list[Arm]) -> list[str]:
    """A plot per axis."""
    single = arms[0].runs[0] if len(arms) == 1 and len(arms[0].runs) == 1 else None
    plots = []
    for label, over in AXES.items():
        if single is not None:
            lines = _of_one(single, over)
        else:
            lines = [
                line for n, arm in enumerate(arms) for line in arm_lines(arm, SUCCESS, over, n)
            ]
        plots.append(plot(f"Success by {label}", lines, x_label=label, bounds=(0.0, 1.0)))
    return [each for each in plots if each]


def _of_one(run: Run, over: str) -> list[Line]:
    """Every step as a faint line, and a moving average with its 95 % interval over tasks."""
    xs, ys = run.series(SUCCESS, over)
    if len(xs) == 0:
        return []
    width = max(1, len(ys) // 10) | 1
    mean = smooth(ys, width)
    half = _half_width(run, width, len(ys))
    band = (None, None) if half is None else (mean - half, mean + half)
    name = "each step" if width == 1 else f"mean over {width} steps"
    label = f"{name}, 95 % interval over tasks" if half is not None else name
    return [Line(xs, ys, faint=True), Line(xs, mean, label, *band)]


def _half_width(run: Run, width: int, count: int) -> Floats | None:
    """Of the interval of a moving average: errors of steps are independent of one another."""
    _, errors = run.series(f"{SUCCESS}_error")
    if len(errors) != count:
        return None
    variance = smooth(errors**2, width)
    index = np.arange(count)
    half = width // 2
    size = np.minimum(index + half + 1, count) - np.maximum(index - half, 0)
    found: Floats = Z * np.sqrt(variance / size)
    return found


def arm_lines(arm: Arm, name: str, over: str, colour: int) -> list[Line]:
    """The mean of an arm's runs with a 95 % interval over seeds, and each run behind it."""
    each = [run.series(name, over) for run in arm.runs]
    each = [(xs, smooth(ys, max(1, len(ys) // 10) | 1)) for xs, ys in each if len(xs)]
    if not each:
        return []
    if len(each) == 1:
        return [Line(*each[0], arm.label, colour=colour)]
    start = max(float(xs[0]) for xs, _ in each)
    end = min(float(xs[-1]) for xs, _ in each)
    lines = [Line(xs, ys, colour=colour, faint=True) for xs, ys in each]
    if end < start:
        return lines
    grid = np.linspace(start, end, GRID)
    values = np.stack([np.interp(grid, xs, ys) for xs, ys in each])
    mean = values.mean(axis=0)
    half = student_t(len(each) - 1) * values.std(axis=0, ddof=1) / math.sqrt(len(each))
    label = f"{arm.label}, {len(each)} seeds with 95 % interval"
    return [*lines, Line(grid, mean, label, mean - half, mean + half, colour)]
