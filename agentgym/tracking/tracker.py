"""What a tracker does, what it is given, and how a failing one is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is given about a run."""

    name: str
    """Name of the run folder."""
    folder: Path
    """The run folder; trackers that keep files keep them there unless configured otherwise."""
    settings: Mapping[str, str | int | float | bool]
    """Resolved settings by dotted name."""
    known_as: str | None = None
    """The tracker's own name of this run, where it is continued."""
    step: int = 0
    """Training step that it continues from."""
    project: str = "agentgym"
    """Project or experiment, where the tracker's own environment variable names none."""


class Tracker(Protocol):
    """One run in one tracker."""

    @property
    def known_as(self) -> str:
        """The tracker's own name of the run, with which it is continued."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add finite numbers of a step; steps never decrease but where a run was continued."""

    def finish(self) -> None:
        """Write what is buffered, and end the run."""


@dataclass
class Trackers:
    """The trackers of a run. One that raises is reported once and dropped; training continues."""

    open: dict[str, Tracker] = field(default_factory=dict)
    warn: Callable[[str], None] = field(default=lambda text: None)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the finite numbers to every tracker."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.log(step, finite))

    def finish(self) -> None:
        """End the run in every tracker."""
        self._each(lambda tracker: tracker.finish())
        self.open.clear()

    def _each(self, use: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.open.items()):
            try:
                use(tracker)
            except Exception as problem:  # The package of another project must not end a run.
                self.drop(name, problem)

    def drop(self, name: str, problem: Exception) -> None:
        """Leave a tracker behind, with a warning."""
        self.open.pop(name, None)
        reason = (str(problem).splitlines() or [""])[0][:200]
        self.warn(
            f"warning: tracker {name} is dropped, training continues: "
            f"{type(problem).__name__}: {reason}"
        )
