"""What the runs of `scripts/reproduce` found: a file with one line per run, after one for them all.

Table and figure are made of this file alone. So run folders can be deleted, and the file taken to
another machine, where the study goes on; a run that has a line is not done again.

Axes: M tasks of the panel.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.errors import ConfigError
from agentgym.evaluation.files import read_report
from agentgym.evaluation.measures import passes
from agentgym.evaluation.report import Report
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.utils.jsonl import append_line, dumps, read_objects

KEPT = ("step", "episode/success", "policy/entropy", "spent/turns", "spent/tokens")
"""Metrics that the report reads, by name."""
EFFECTS = {
    "KL per step": "/kl",
    "clipped": "/clipped",
    "tokens without weight": "credit/masked",
    "reweighted": "credit/reweighted",
    "net advantage": "credit/net",
    "reused turns": "group/reused_turns",
}
"""Metrics that show whether a mechanism acted: title and end of the name (updates differ)."""
DIGITS = 5
"""Significant digits of a metric."""


class Key(NamedTuple):
    """Which run."""

    arm: str
    seed: int
    rate: float
    split: str


class Record(NamedTuple):
    """What a run found."""

    algo: Mapping[str, Any]
    """Settings of the algorithm."""
    panel: str = ""
    """Digest of its panel; empty if it stopped."""
    episodes: int = 0
    """Of each task."""
    before: tuple[float, ...] = ()
    """Share of the episodes of each task that the warm-up won, (M,)."""
    after: tuple[float, ...] = ()
    """The same of the last checkpoint; empty if it stopped."""
    steps: tuple[Mapping[str, float], ...] = ()
    """What the report reads of the metrics of each training step."""
    stopped: str = ""
    """Why training stopped before its end."""


class Common(NamedTuple):
    """What all runs of a file have in common."""

    warm: str
    """Fingerprint of the checkpoint that they begin with."""
    settings: Mapping[str, Any]
    """Of every run, but for model, seed, learning rate, split and algorithm."""


@dataclass(frozen=True)
class RecordFile:
    """The file."""

    path: Path

    def open(self, common: Common) -> None:
        """Begin the file, or make sure that new runs belong to those in it.

        Raises:
            ConfigError: They do not.
        """
        if not self.path.exists():
            append_line(self.path, dumps({"common": common._asdict()}))
            return
        held = self.common()
        if held.warm != common.warm:
            raise ConfigError(
                f"{self.path} holds runs from another warm-up ({held.warm}, now {common.warm}): "
                f"give theirs by --warm, or choose another --out"
            )
        if change := _change(held._asdict(), common._asdict()):
            raise ConfigError(f"{self.path} holds runs with {change}: choose another --out")

    def common(self) -> Common:
        """What its first line says.

        Raises:
            ConfigError: It is not such a file.
        """
        try:
            return Common(**next(read_objects(self.path))["common"])
        except (StopIteration, LookupError, TypeError) as problem:
            raise ConfigError(
                f"{self.path} does not begin with what its runs have in common: "
                f"choose another --out, or remove the file"
            ) from problem

    def read(self) -> dict[Key, Record]:
        """The runs of the file; none where there is no file."""
        if not self.path.exists():
            return {}
        lines = list(read_objects(self.path))[1:]
        return {Key(**line["run"]): _record(line["found"]) for line in lines}

    def add(self, key: Key, record: Record) -> None:
        """Write one more."""
        append_line(self.path, dumps({"run": key._asdict(), "found": record._asdict()}))


def check_same(path: Path, key: Key, held: Record, algo: Mapping[str, Any]) -> None:
    """Make sure that a run of the file had the settings of an algorithm that are asked for now.

    Raises:
        ConfigError: It had others.
    """
    if change := _change(held.algo, algo):
        raise ConfigError(
            f"{path} holds {key.arm}, seed {key.seed}, with {change}: "
            f"remove its line to run it again, or choose another --out"
        )


def record_of(folder: RunFolder, algo: Mapping[str, Any]) -> Record:
    """What a finished run found."""
    before, after = (read_report(folder.evaluation(name)) for name in ("before", "after"))
    return Record(
        algo,
        after.panel.digest,
        after.episodes,
        before=shares_won(before),
        after=shares_won(after),
        steps=tuple(_kept(line) for line in read_metrics(folder.metrics)),
    )


def shares_won(report: Report) -> tuple[float, ...]:
    """Share of the episodes of each task that were won, (M,)."""
    once = passes(1)
    return tuple(round(float(once(task)), 6) for task in report.tasks)


def _kept(line: Mapping[str, float]) -> dict[str, float]:
    endings = tuple(EFFECTS.values())
    return {
        name: float(f"{value:.{DIGITS}g}")
        for name, value in line.items()
        if math.isfinite(value) and (name in KEPT or name.endswith(endings) or "/norm/" in name)
    }


def _record(found: Mapping[str, Any]) -> Record:
    lists = {name: tuple(found[name]) for name in ("before", "after", "steps")}
    return Record(**{**found, **lists})


def _change(held: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> str:
    """The first setting that differs; one that only one side knows came or went since."""
    for name, old in held.items():
        new = json.loads(dumps({"": now.get(name)}))[""]  # As the file would hold it.
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if change := _change(old, new, f"{where}{name}."):
                return change
        elif name in now and new != old:
            return f"{where}{name} {old!r} (now {new!r})"
    return ""
