"""Which trackers there are, whether they are installed, and starting or continuing them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from agentgym.errors import ConfigError, MissingExtra, did_you_mean
from agentgym.tracking.tracker import TrackedRun, Tracker, Trackers
from agentgym.utils.jsonl import write_atomic

PACKAGES = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "swanlab": "swanlab",
}
"""Tracker to the package it needs; the adapter is the module of the tracker's name."""

RUNS = "tracking.json"
"""File of the run folder with the names by which trackers know the run."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that do not exist or are not installed.

    Raises:
        ConfigError: There is no such tracker.
        MissingExtra: Its package is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            known = ", ".join(PACKAGES)
            raise ConfigError(
                f"no tracker {name!r}.{did_you_mean(name, PACKAGES)} Trackers: {known}"
            )
        if find_spec(PACKAGES[name]) is None:
            raise MissingExtra(f"--track {name} needs a package: pip install {PACKAGES[name]}")


def start_trackers(
    names: Iterable[str], run: TrackedRun, warn: Callable[[str], None] = lambda text: None
) -> Trackers:
    """Start the trackers of a run, or continue those that the run folder remembers.

    A tracker that cannot start is warned about and left out.

    Args:
        names: Names of ``PACKAGES``.
        run: The run.
        warn: Receives warnings, one line each.
    """
    file = run.folder / RUNS
    known = _read(file)
    trackers = Trackers(warn=warn)
    for name in dict.fromkeys(names):
        try:
            start: Callable[[TrackedRun], Tracker] = import_module(
                f"agentgym.tracking.{name}"
            ).start
            found = trackers.open[name] = start(replace(run, known_as=known.get(name)))
            known[name] = found.known_as
        except Exception as problem:  # The package of another project must not end a run.
            trackers.drop(name, problem)
    if trackers.open:
        write_atomic(file, json.dumps(known, indent=1))
    return trackers


def _read(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return dict(found) if isinstance(found, dict) else {}
