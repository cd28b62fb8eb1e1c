"""The page of a run in its folder: read from the files there, and rewritten while the run goes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from agentgym.errors import ConfigError
from agentgym.evaluation.files import read_report
from agentgym.evaluation.report import Report
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.run_report.page import page
from agentgym.run_report.run import Run
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display

SHARE = 0.005
"""Largest part of a run's time that is spent on its page."""


def read_run(
    folder: RunFolder, *, running: bool | None = None, settings: dict[str, Any] | None = None
) -> Run:
    """What a run folder holds so far.

    Args:
        folder: The folder.
        running: Whether a process works on it; unset: whether its lock is held.
        settings: Of the run, where it has no config.yaml: one that ``run_blocking`` began.

    Raises:
        ConfigError: It is no run folder, or its settings or metrics are damaged.
    """
    if settings is None or folder.config.is_file():
        settings = _settings(folder)
    left_out: list[str] = []
    return Run(
        name=folder.root.resolve().name,
        metrics=tuple(read_metrics(folder.metrics)) if folder.metrics.exists() else (),
        settings=settings,
        versions=_versions(folder),
        before=_report(folder, "before", left_out),
        after=_report(folder, "after", left_out),
        running=folder.held() if running is None else running,
        warnings=tuple(left_out),
    )


def _settings(folder: RunFolder) -> dict[str, Any]:
    if not folder.config.is_file():
        raise ConfigError(
            f"{folder.root} is no run folder: expected a folder that `agentgym train` wrote, with "
            f"config.yaml in it"
        )
    try:
        found = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        reason = str(problem).splitlines()[0]
        raise ConfigError(f"{folder.config} is not YAML: {reason}") from problem
    if not isinstance(found, dict):
        raise ConfigError(f"{folder.config} is {found!r}, expected the settings of a run")
    return found


def write_page(folders: Sequence[Path], target: Path) -> bool:
    """Write the report of one run or several; returns whether one of them is running.

    Raises:
        ConfigError: A folder is no run folder, or there is none.
    """
    runs = [read_run(RunFolder(folder)) for folder in folders]
    write_atomic(target, page(runs))
    return any(run.running for run in runs)


class GrowingPage:
    """The page of a run under way, written as often as ``SHARE`` of its time allows."""

    def __init__(
        self, folder: RunFolder, display: Display, settings: dict[str, Any] | None = None
    ) -> None:
        self.folder, self.settings, self.display = folder, settings, display
        self._due = 0.0

    def update(self) -> None:
        """Write the page if it is due; one that cannot be made is a warning, given once."""
        start = time.monotonic()
        if start < self._due:
            return
        try:
            write_atomic(
                self.folder.page,
                page([read_run(self.folder, running=True, settings=self.settings)]),
            )
        except Exception as problem:  # A picture of the run must not end the run.
            self.display.say(f"warning: {self.folder.page} is no longer written: {problem!r}")
            self._due = math.inf
            return
        now = time.monotonic()
        self._due = now + (now - start) / SHARE


def _report(folder: RunFolder, name: str, left_out: list[str]) -> Report | None:
    """An evaluation; None where it is missing, has not started or cannot be read."""
    path = folder.evaluation(name)
    if not path.is_file() or b"\n" not in path.read_bytes():
        return None
    try:
        report = read_report(path)
    except ConfigError as problem:  # Of another version, or damaged: the rest is still shown.
        left_out.append(f"{path.name} is left out: {problem}")
        return None
    return report if any(task.finished for task in report.tasks) else None


def _versions(folder: RunFolder) -> dict[str, str]:
    if not folder.versions.is_file():
        return {}
    try:
        found = json.loads(folder.versions.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(name): str(value) for name, value in pairs}
