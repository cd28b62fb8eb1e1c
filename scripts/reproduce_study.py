"""What `scripts/reproduce` planned, and what its runs have found so far.

Axes: S training seeds, M tasks of the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from reproduce_records import Record

from agentgym.evaluation.stats.intervals import Floats


class Study(NamedTuple):
    """What was planned, and found."""

    env: str
    """Name of the environment."""
    split: str
    """Of the table."""
    against: Mapping[str, tuple[str, ...]]
    """What each arm is compared with."""
    panels: Mapping[str, tuple[str, ...]]
    """What is drawn together."""
    rates: Mapping[str, float | None]
    """Learning rate of each arm; None where none has been chosen yet."""
    found: Mapping[str, Mapping[int, Record]]
    """Runs of the table that are done, by arm and seed."""
    stopped: Mapping[str, int]
    """Runs of the table that stopped before their end, by arm."""
    sweep: Mapping[str, Mapping[float, Record]]
    """Those on the valid split by arm and learning rate; without a sweep there are none."""

    def finished(self, arm: str) -> list[int]:
        """Seeds with which an arm is done; none of an arm that was not planned."""
        return sorted(self.found.get(arm, ()))

    def shared(self, arm: str, other: str) -> list[int]:
        """Seeds with which both are done."""
        return [seed for seed in self.finished(arm) if seed in self.finished(other)]

    def success(
        self, arm: str, seeds: Sequence[int], when: Literal["before", "after"] = "after"
    ) -> Floats:
        """Share of the episodes of each task that were won, (S, M)."""
        runs = self.found[arm]
        return np.array([runs[s].before if when == "before" else runs[s].after for s in seeds])

    def metrics(self, arm: str) -> list[tuple[Mapping[str, float], ...]]:
        """Lines of each finished run."""
        return [self.found[arm][seed].steps for seed in self.finished(arm)]
