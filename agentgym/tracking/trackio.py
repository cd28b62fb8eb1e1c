"""Trackio: a local database, or a Space where TRACKIO_SPACE_ID names one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from agentgym.tracking.tracker import TrackedRun


class Trackio:
    """One run of Trackio."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", run.project),
            name=run.known_as or run.name,
            config=dict(run.settings),
            resume="allow" if run.known_as else "never",
            embed=False,
        )
        self.known_as = str(self._run.name)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Write what is buffered."""
        self._run.finish()


def start(run: TrackedRun) -> Trackio:
    """Start or continue a run."""
    return Trackio(run)
