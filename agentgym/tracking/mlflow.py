"""MLflow; its own variables (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME) are respected."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping

from agentgym.tracking.tracker import TrackedRun

BATCH = 100
"""Most parameters that one request may hold."""
LONGEST = 500
"""Characters of a parameter's value that every server accepts."""


class MLflow:
    """One run of MLflow, through its client: no global run is touched."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        if run.known_as is not None:
            self.known_as = run.known_as
            self._client.update_run(self.known_as, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        made = self._client.create_run(experiment, run_name=run.name)
        self.known_as = str(made.info.run_id)
        self._settings(run.settings)

    def _settings(self, settings: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:LONGEST]) for name, value in settings.items()]
        for start in range(0, len(params), BATCH):
            self._client.log_batch(self.known_as, params=params[start : start + BATCH])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = [Metric(allowed(name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self.known_as, metrics=numbers)

    def finish(self) -> None:
        """End the run."""
        self._client.set_terminated(self.known_as)


def allowed(name: str) -> str:
    """A name that MLflow accepts: letters, digits, and ``_-. :/``.

    Examples:
        >>> allowed("eval/pass@8"), allowed("eval/pass^8")
        ('eval/pass_at_8', 'eval/pass_hat_8')
    """
    name = name.replace("@", "_at_").replace("^", "_hat_")
    return re.sub(r"[^\w\-. :/]", "_", name)


def start(run: TrackedRun) -> MLflow:
    """Start or continue a run."""
    return MLflow(run)
