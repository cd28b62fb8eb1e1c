"""The result of a training run, as a value that prints as a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentgym.evaluation.render import grid
from agentgym.evaluation.report import Report


@dataclass(frozen=True)
class TrainResult:
    """A finished run: its evaluations before and after training, and its folder."""

    before: Report
    after: Report
    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The trained model, a Hugging Face folder."""
        return self.folder / "checkpoints" / "final"

    def metrics(self) -> list[dict[str, float]]:
        """Named numbers of every training step."""
        from agentgym.experiment.metrics_file import read_metrics

        return read_metrics(self.folder / "metrics.jsonl")

    def __str__(self) -> str:
        """The table before and after training."""
        return grid(self.after, self.before).text()

    def _repr_html_(self) -> str:
        """The same, for notebooks."""
        return grid(self.after, self.before).html()
