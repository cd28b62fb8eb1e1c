"""Weights & Biases; its own variables (WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY) are respected."""

from __future__ import annotations

import os
from collections.abc import Mapping

from agentgym.tracking.tracker import TrackedRun


class Wandb:
    """One run of W&B."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.project),
            name=run.name,
            id=run.known_as,
            resume="allow" if run.known_as else None,
            dir=run.folder,
            config=dict(run.settings),
            settings=wandb.Settings(console="off"),  # The terminal shows a live table.
        )
        self.known_as = str(self._run.id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Wait until everything is written."""
        self._run.finish()


def start(run: TrackedRun) -> Wandb:
    """Start or continue a run."""
    return Wandb(run)
