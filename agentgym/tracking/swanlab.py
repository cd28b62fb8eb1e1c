"""SwanLab; its own variables (SWANLAB_MODE, SWANLAB_API_KEY, SWANLAB_PROJ_NAME) are respected."""

from __future__ import annotations

import os
from collections.abc import Mapping

from agentgym.tracking.tracker import TrackedRun


class SwanLab:
    """One run of SwanLab."""

    def __init__(self, run: TrackedRun) -> None:
        import swanlab

        self._run = swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", run.project),
            experiment_name=run.name,
            config=dict(run.settings),
            logdir=str(run.folder / "swanlab"),
            id=run.known_as,
            resume="allow" if run.known_as else None,
        )
        self.known_as = str(self._run.id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Write what is buffered."""
        self._run.finish()


def start(run: TrackedRun) -> SwanLab:
    """Start or continue a run."""
    return SwanLab(run)
