"""What a report is made of: the logs of a run, and arms of runs that differ only in their seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np
import yaml

from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.intervals import Floats

AXES = {"training step": "step", "environment steps": "spent/turns", "hours of training": "hours"}
"""What success can be drawn over: the label and the series of it."""

NOT_AN_ARM = ("seed", "track", "save_every", "save_async", "steps", "max_env_steps")
"""Settings that runs of one arm may differ in."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, finished or not."""

    name: str
    """Name of its folder."""
    metrics: tuple[Mapping[str, float], ...]
    """One mapping per training step, each with ``step``."""
    settings: Mapping[str, Any]
    """The resolved settings, as in ``config.yaml``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Packages and machine."""
    before: Report | None = None
    after: Report | None = None
    running: bool = False
    """A process works on it."""
    warnings: tuple[str, ...] = ()
    """What is left out, and why."""

    @property
    def algorithm(self) -> str:
        """Name of its algorithm."""
        return str(self.settings.get("algorithm", ""))

    @property
    def steps(self) -> int:
        """Training steps taken."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def names(self, *patterns: str) -> list[str]:
        """Names of its metrics that fit a pattern, such as ``*/kl``, in the order of patterns."""
        known = sorted({name for line in self.metrics for name in line} - {"step"})
        found = (name for pattern in patterns for name in known if fnmatch(name, pattern))
        return list(dict.fromkeys(found))

    def series(self, name: str, over: str = "step") -> tuple[Floats, Floats]:
        """A metric over an axis of ``AXES``, without the steps that did not measure it."""
        xs = self.hours if over == "hours" else self._column(over)
        ys = self._column(name)
        known = np.isfinite(xs) & np.isfinite(ys)
        return xs[known], ys[known]

    @property
    def hours(self) -> Floats:
        """Wall time of training at the end of each step."""
        seconds = self._column("time/step")
        if not np.isfinite(seconds).any():  # Of an older version: without checkpoints and logs.
            seconds = self._column("time/rollout") + self._column("time/update")
        return np.cumsum(np.nan_to_num(seconds)) / 3600

    def _column(self, name: str) -> Floats:
        return np.array([line.get(name, math.nan) for line in self.metrics], dtype=np.float64)


@dataclass(frozen=True)
class Arm:
    """Runs with the same settings except the seed."""

    label: str
    runs: tuple[Run, ...]


def arms_of(runs: Sequence[Run]) -> list[Arm]:
    """Group runs by their settings, in order; an arm is named after what sets it apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        kept = {key: value for key, value in run.settings.items() if key not in NOT_AN_ARM}
        # Runs without settings are not comparable: each is an arm.
        groups.setdefault(yaml.safe_dump(kept) if kept else run.name, []).append(run)
    algorithms = [found[0].algorithm for found in groups.values()]
    apart = len(set(algorithms)) == len(algorithms)
    return [
        Arm(found[0].algorithm if apart and found[0].algorithm else _name(found), tuple(found))
        for found in groups.values()
    ]


def _name(runs: Sequence[Run]) -> str:
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return runs[0].name + more


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings as dotted names and values."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
