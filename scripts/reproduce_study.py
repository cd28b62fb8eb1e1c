"""What `scripts/reproduce` planned, and what its runs have left on disk so far.

Axes: S training seeds, M tasks of the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentgym.evaluation.files import read_report
from agentgym.evaluation.measures import passes
from agentgym.evaluation.stats.intervals import Floats
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder


class Study(NamedTuple):
    """What was planned."""

    roots: Mapping[str, Sequence[Path]]
    """Run folders of each arm, by seed."""
    against: Mapping[str, tuple[str, ...]]
    """What each is compared with."""
    panels: Mapping[str, tuple[str, ...]]
    """What is drawn together."""
    rates: Mapping[str, float | None]
    """Learning rate of each arm; None where none has been chosen yet."""
    sweep: Mapping[str, Mapping[float, Path]]
    """Run folders on the valid split by arm and learning rate; without a sweep there are none."""

    def finished(self, arm: str) -> list[int]:
        """Seeds with which an arm is done; none of an arm that was not planned."""
        roots = self.roots.get(arm, ())
        return [seed for seed, root in enumerate(roots) if RunFolder(root).table.exists()]

    def shared(self, arm: str, other: str) -> list[int]:
        """Seeds with which both are done."""
        return [seed for seed in self.finished(arm) if seed in self.finished(other)]

    def success(self, arm: str, seeds: Sequence[int], name: str = "after") -> Floats:
        """Share of the episodes of each task that were won, (S, M)."""
        return np.array([passed(self.roots[arm][seed], name) for seed in seeds])

    def metrics(self, arm: str) -> list[list[dict[str, float]]]:
        """Lines of each finished run."""
        return [read_metrics(RunFolder(self.roots[arm][s]).metrics) for s in self.finished(arm)]


def passed(root: Path, name: str) -> Floats:
    """Share of the episodes of each task that a run won in an evaluation, (M,)."""
    return passed_in(RunFolder(root).evaluation(name))


def passed_in(file: Path) -> Floats:
    """Share of the episodes of each task that were won in an evaluation file, (M,)."""
    once = passes(1)
    return np.array([once(task) for task in read_report(file).tasks])
