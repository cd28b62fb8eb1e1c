"""`agentgym report`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agentgym.cli.parsing import parse
from agentgym.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write the report of a run as one HTML file that opens offline.

    Success with intervals over steps, environment steps and wall time; what happens inside
    training; where the time goes; alarms in plain sentences; the panel before and after; settings
    and versions. `agentgym train` writes the same to RUN/report.html and renews it while the run
    goes; the page of a running run loads itself again.

    Several runs are drawn over one another. Runs that differ only in their seed are one arm, with a
    95 % interval over seeds:

        agentgym report runs/gigpo-* runs/grpo-* --out arms.html
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders."""
    out: Path | None = None
    """The file; unset: report.html in the folder of a single run, else in the current folder."""
    watch: bool = False
    """Write the file again every few seconds until no run is going."""
    every: float = 10.0
    """Seconds between two writes of `--watch`."""


def report(arguments: list[str]) -> int:
    """``report RUN... [options]``."""
    options = parse(ReportOptions, arguments, prog="agentgym report")
    from agentgym.experiment.report_page import write_page

    if not options.runs:
        raise ConfigError("name a run folder: agentgym report RUN")
    if options.every <= 0:
        raise ConfigError(f"every is {options.every}, expected more than 0 seconds")
    inside = options.runs[0] if len(options.runs) == 1 else Path()
    target = options.out or inside / "report.html"
    running = write_page(options.runs, target)
    print(target, flush=True)
    try:
        while running and options.watch:
            time.sleep(options.every)
            running = write_page(options.runs, target)
    except KeyboardInterrupt:
        return 130
    return 0
