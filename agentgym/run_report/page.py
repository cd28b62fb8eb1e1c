"""The page: sections of one run, or of several arms of runs over one another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.plots import SUCCESS
from agentgym.evaluation.render import grid
from agentgym.evaluation.stats.seeds import gain_over_seeds
from agentgym.run_report.alarms import alarm_sentences
from agentgym.run_report.durations import clock, time_section
from agentgym.run_report.run import Arm, Run, arms_of, flat
from agentgym.run_report.signals import other_plots, signal_plots
from agentgym.run_report.success import success_plots
from agentgym.run_report.svg import number

REFRESH = 20
"""Seconds after which the page of a running run loads itself again."""


def page(runs: Sequence[Run]) -> str:
    """The report as an HTML document without references to anything outside it.

    Args:
        runs: One run for its whole report; several for a comparison, in which runs that differ
            only in their seed are one arm.

    Raises:
        ConfigError: There is no run.
    """
    if not runs:
        raise ConfigError("a report needs a run: `agentgym report RUN`")
    body = _of_one(runs[0]) if len(runs) == 1 else _of_arms(arms_of(runs))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    refresh = f'<meta http-equiv="refresh" content="{REFRESH}">'
    style = files("agentgym.run_report").joinpath("static", "report.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh if any(run.running for run in runs) else ''}"
        f'<link rel="icon" href="data:,"><title>{escape(title)} · agentgym</title>'
        f"<style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _of_one(run: Run) -> str:
    settings = run.settings
    seed = f"seed {settings['seed']}" if "seed" in settings else ""
    about = [run.algorithm, str(settings.get("env", "")), seed, _state(run)]
    parts = [
        f"<h1>{escape(run.name)}</h1>",
        f'<p class="meta">{escape(" · ".join(filter(None, about)))}</p>',
        *(f'<p class="warning">{escape(each)}</p>' for each in run.warnings),
        _tiles(run),
        _section("Success", _plots(success_plots([Arm("", (run,))]))),
        _section("Before and after", _panel(run)),
        _section("Alarms", _alarms(run)),
        _section("Inside training", _plots(signal_plots([Arm("", (run,))]))),
        _section("Where the time goes", time_section(run)),
        _folded("All other metrics", _plots(other_plots(run))),
        _folded("Settings", _table(dict(flat(settings)), ("setting", "value"))),
        _folded("Versions", _table(run.versions, ("package", "version"))),
    ]
    return "".join(parts)


def _of_arms(arms: list[Arm]) -> str:
    parts = [
        f"<h1>{len(arms)} arms</h1>"
        if len(arms) > 1
        else f"<h1>{escape(arms[0].label)}, {len(arms[0].runs)} seeds</h1>",
        '<p class="meta">Runs that differ only in their seed are one arm. Bands are 95 % intervals '
        "over seeds (Student's t).</p>",
        _section("Arms", _arm_table(arms)),
        _section("Success", _plots(success_plots(arms))),
        _section("Inside training", _plots(signal_plots(arms))),
        _folded("Settings that differ", _differences(arms)),
    ]
    return "".join(parts)


def _state(run: Run) -> str:
    wanted = run.settings.get("steps")
    steps = f"step {run.steps} of {wanted}" if wanted is not None else f"{run.steps} steps"
    if run.running:
        return f"running, {steps}, written at {time.strftime('%H:%M:%S')}"
    return f"finished, {run.steps} steps" if run.after is not None else f"not finished, {steps}"


def _tiles(run: Run) -> str:
    shown: dict[str, str] = {}
    for name, report in (("pass@1 before", run.before), ("pass@1 after", run.after)):
        if report is not None:
            shown[name] = str(report.pass_at(1))
    _, success = run.series(SUCCESS)
    if len(success):
        recent = success[-max(1, len(success) // 10) :]
        shown["success, last tenth"] = f"{float(np.mean(recent)):.2f}"
    if run.metrics:
        last = run.metrics[-1]
        shown["environment steps"] = number(last.get("spent/turns", 0.0))
        shown["sampled tokens"] = number(last.get("spent/tokens", 0.0))
        shown["training time"] = clock(3600 * float(run.hours[-1]))
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in shown.items()
    )
    return f'<dl class="tiles">{tiles}</dl>'


def _panel(run: Run) -> str:
    if run.after is not None and run.before is not None:
        return f'<div class="wide">{grid(run.after, run.before).html()}</div>'
    if run.before is not None:
        return f'<div class="wide">{grid(run.before).html()}</div>'
    return ""


def _alarms(run: Run) -> str:
    found = alarm_sentences(run)
    if not run.metrics:
        return ""
    if not found:
        return "<p>No alarm was given.</p>"
    return "<ul>" + "".join(f"<li>{each}</li>" for each in found) + "</ul>"


def _arm_table(arms: list[Arm]) -> str:
    rows = []
    for number_, arm in enumerate(arms):
        pairs = [
            (run.before.pass_at(1).value, run.after.pass_at(1).value)
            for run in arm.runs
            if run.before is not None and run.after is not None
        ]
        before = f"{np.mean([pair[0] for pair in pairs]):.2f}" if pairs else ""
        after = f"{np.mean([pair[1] for pair in pairs]):.2f}" if pairs else ""
        gains = [pair[1] - pair[0] for pair in pairs]
        signed = "".join(f"{gain:+.2f}" for gain in gains)
        gain = str(gain_over_seeds(gains)) if len(gains) > 1 else signed
        names = ", ".join(run.name for run in arm.runs)
        rows.append(
            f'<tr><td><i class="key c{number_ % 8}"></i>{escape(arm.label)}</td>'
            f"<td>{len(arm.runs)}</td><td>{before}</td><td>{after}</td><td>{escape(gain)}</td>"
            f"<td>{escape(names)}</td></tr>"
        )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("arm", "runs", "pass@1 before", "after", "gain over seeds", "folders")
    )
    return _wide(head, "".join(rows))


def _differences(arms: list[Arm]) -> str:
    columns = [dict(flat(arm.runs[0].settings)) for arm in arms]
    names = list(dict.fromkeys(name for column in columns for name in column))
    apart = [name for name in names if len({str(column.get(name, "")) for column in columns}) > 1]
    if not apart:
        return ""
    head = "".join(f"<th>{escape(arm.label)}</th>" for arm in arms)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{escape(str(column.get(name, '')))}</td>" for column in columns)
        + "</tr>"
        for name in apart
    )
    return _wide(f"<th>setting</th>{head}", rows)


def _plots(plots: Sequence[str]) -> str:
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _folded(title: str, content: str) -> str:
    if not content:
        return ""
    return f"<details><summary>{title}</summary>{content}</details>"


def _table(values: Mapping[str, object], columns: tuple[str, str]) -> str:
    if not values:
        return ""
    head = "".join(f"<th>{name}</th>" for name in columns)
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(_shown(value))}</td></tr>"
        for name, value in values.items()
    )
    return _wide(head, rows)


def _wide(head: str, rows: str) -> str:
    """A table that scrolls where the screen is narrower."""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)
