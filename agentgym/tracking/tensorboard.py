"""TensorBoard: event files in RUN/tensorboard; ``tensorboard --logdir RUN`` shows them."""

from __future__ import annotations

from collections.abc import Mapping

from agentgym.tracking.tracker import TrackedRun


class TensorBoard:
    """Writes scalars with PyTorch's writer."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.known_as = "tensorboard"
        # Events from this step on are those of an interrupted run, which are played again.
        purge = run.step + 1 if run.known_as else None
        self._writer = SummaryWriter(run.folder / self.known_as, purge_step=purge)
        if run.known_as is None:
            rows = "\n".join(f"| {name} | {value} |" for name, value in run.settings.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


def start(run: TrackedRun) -> TensorBoard:
    """Start or continue a run."""
    return TensorBoard(run)
