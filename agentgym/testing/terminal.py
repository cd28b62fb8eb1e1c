"""The check in the terminal: progress while it runs, then a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from agentgym.settings import CheckSettings
from agentgym.testing.findings import Finding, Verdict
from agentgym.testing.worlds import CHECKS, findings
from agentgym.utils.progress import Display

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "dim"}


def check_in_terminal(
    env: str, env_args: Mapping[str, Any], effort: CheckSettings, display: Display
) -> int:
    """Run every check; returns 0 when none failed, 1 otherwise.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: The environment's own package is not installed.
    """
    found: list[Finding] = []
    running = findings(env, effort, **env_args)
    with display.stage("check", len(CHECKS)) as advance:
        for finding in running:
            found.append(finding)
            advance(len(found), f"{finding.check}: {finding.verdict}")
    display.say(_table(env, found))
    broken = sum(finding.verdict is Verdict.FAILED for finding in found)
    if broken:
        display.say(f"{env} breaks the contract: {broken} violation{'s' * (broken > 1)}")
    else:
        display.say(f"{env} keeps the contract")
    return int(broken > 0)


def _table(env: str, found: list[Finding]) -> Table:
    table = Table(title=env)
    table.add_column("check")
    table.add_column("result")
    table.add_column("seconds", justify="right")
    table.add_column("what was looked at, what is wrong, or why it was skipped")
    for finding in found:
        style = _STYLES[finding.verdict]
        result = f"[{style}]{finding.verdict}[/]"
        table.add_row(finding.check, result, f"{finding.seconds:.1f}", escape(finding.note))
    return table
