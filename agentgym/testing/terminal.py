"""The check in the terminal: progress while it runs, then a table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from agentgym.env import schemes
from agentgym.env.registry import world
from agentgym.settings import CheckSettings
from agentgym.testing.environments import SERVER_CHECKS, checks_of, findings
from agentgym.testing.findings import Finding, Verdict
from agentgym.testing.severity import COVERED, NAMES, verdicts
from agentgym.utils.progress import Display, Fact

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


def check_in_terminal(
    env: str,
    env_args: Mapping[str, Any],
    effort: CheckSettings,
    display: Display,
    report: Path | None = None,
) -> int:
    """Run every check; returns 0 when none failed, 1 otherwise.

    Args:
        env: Name of the environment.
        env_args: Its keyword arguments.
        effort: How long to look.
        display: Where the table is shown.
        report: File for the findings as JSON.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: The environment's own package is not installed.
    """
    found: list[Finding] = []
    running = findings(env, effort, **env_args)
    with display.stage("check", len(checks_of(env))) as advance:
        for finding in running:
            found.append(finding)
            advance(len(found), Fact(finding.check, finding.verdict))
    display.say(_table(env, found))
    if schemes.split(env) and (lacking := _lacking(env, env_args)):
        display.say(f"{env} does not promise: {lacking}")
    if checks_of(env) is SERVER_CHECKS:
        display.say(severity_line(found))
    if report is not None:
        write_report(report, env, found)
    cut = sum(bool(finding.cut) for finding in found)
    if cut:
        display.say(
            f"{cut} checks passed on fewer repetitions than they want, for lack of time "
            f"(--effort.budget {effort.budget:g}; 0: no limit)"
        )
    broken = sum(finding.verdict is Verdict.FAILED for finding in found)
    if broken:
        display.say(f"{env} breaks the contract: {broken} violation{'s' * (broken > 1)}")
    else:
        display.say(f"{env} keeps the contract")
    return int(broken > 0)


def _lacking(env: str, env_args: Mapping[str, Any]) -> str:
    bare = world(env, **env_args)
    bare.close()
    return ", ".join(bare.promises.lacking)


def severity_line(found: list[Finding]) -> str:
    """What the findings mean by the names of OpenEnv's policy."""
    held = verdicts(found)
    by_verdict = {
        each: [name for name, verdict in held.items() if verdict is each] for each in Verdict
    }
    failed, skipped = by_verdict[Verdict.FAILED], by_verdict[Verdict.SKIPPED]
    line = f"severity-v1: {len(by_verdict[Verdict.PASSED])} of {len(NAMES)} names passed"
    line += f", failed: {', '.join(failed)}" if failed else ", none failed"
    line += f", skipped: {', '.join(skipped)}" if skipped else ""
    return f"{line}; {len(NAMES) - len(COVERED)} cannot be looked at over the wire"


def write_report(path: Path, env: str, found: list[Finding]) -> None:
    """Findings and verdicts as JSON, for a pipeline."""
    report = {
        "env": env,
        "findings": [dataclasses.asdict(finding) for finding in found],
        "severity-v1": verdicts(found),
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _table(env: str, found: list[Finding]) -> Table:
    table = Table(title=env)
    table.add_column("check")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    table.add_column("what was looked at, what is wrong, or why it was skipped")
    for finding in found:
        style = _STYLES[finding.verdict]
        result = f"[{style}]{finding.verdict}[/]"
        note = finding.note
        if finding.cut:
            result, note = f"[yellow]{finding.verdict}, cut[/]", f"{note} (cut: {finding.cut})"
        table.add_row(finding.check, result, f"{finding.seconds:.1f}", escape(note))
    return table
