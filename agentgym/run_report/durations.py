"""Where the wall time of training goes."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

import numpy as np

from agentgym.run_report.run import Run
from agentgym.run_report.svg import Line, plot


class Stage(NamedTuple):
    """One kind of work in a training step."""

    name: str
    metric: str
    meaning: str


STAGES = (
    Stage("engine", "time/engine", "rollout: episodes wait for sampled tokens"),
    Stage("environment", "time/env", "rollout: episodes wait for observations"),
    Stage("update", "time/update", "credit, forward and backward passes"),
    Stage("sync", "time/sync", "new weights go to the engine"),
)
REST = Stage("rest", "time/step", "checkpoints, logs, and waiting between the stages")


def seconds_by_stage(run: Run) -> dict[Stage, float]:
    """Total seconds of each stage; the rest is what the whole steps took besides them."""
    found = {stage: float(run.series(stage.metric)[1].sum()) for stage in STAGES}
    whole = float(run.series("time/step")[1].sum())
    if whole:
        found[REST] = max(0.0, whole - sum(found.values()))
    return {stage: seconds for stage, seconds in found.items() if seconds > 0}


def time_section(run: Run) -> str:
    """A bar, a table and a plot; empty for a run without times."""
    found = seconds_by_stage(run)
    total = sum(found.values())
    if not total:
        return ""
    slowest = max(found, key=lambda stage: found[stage])
    bar = "".join(
        f'<i class="c{number}" style="width:{100 * seconds / total:.2f}%" '
        f'title="{escape(stage.name)}"></i>'
        for number, (stage, seconds) in enumerate(found.items())
    )
    rows = "".join(
        f'<tr><td><i class="key c{number}"></i>{stage.name}</td><td>{clock(seconds)}</td>'
        f"<td>{100 * seconds / total:.0f} %</td><td>{stage.meaning}</td></tr>"
        for number, (stage, seconds) in enumerate(found.items())
    )
    lines = [
        Line(*run.series(stage.metric), stage.name, colour=number)
        for number, stage in enumerate(found)
        if stage is not REST
    ]
    return (
        f"<p>{clock(total)} in all. The slowest stage is <b>{slowest.name}</b> with "
        f"{100 * found[slowest] / total:.0f} % of the time.</p>"
        f'<div class="bar">{bar}</div><div class="wide"><table><thead><tr><th>stage</th>'
        f"<th>time</th><th>share</th><th>what it is</th></tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{plot('Seconds per step', lines)}"
    )


def clock(seconds: float) -> str:
    """Such as ``1 h 05 min``.

    Examples:
        >>> clock(3900), clock(65), clock(5)
        ('1 h 05 min', '1 min 05 s', '5 s')
    """
    if not np.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
