"""Where the numbers of each training step go: files, trackers, the page of the run."""

from __future__ import annotations

import time

from agentgym.evaluation.record_files import append
from agentgym.evaluation.records import EpisodeRecord
from agentgym.experiment.metrics_file import MetricsWriter, truncate_episodes
from agentgym.experiment.parts import RunParts
from agentgym.experiment.report_page import GrowingPage
from agentgym.rollout.player import Player
from agentgym.training.trainer import Step
from agentgym.utils import yaml_config


class StepLog:
    """Logs training steps.

    Args:
        parts: The run.
        step: Step that the run continues from.
        recorded: Episodes of the steps so far.
    """

    def __init__(self, parts: RunParts, *, step: int, recorded: int) -> None:
        self.folder, self.display, self.trackers = parts.folder, parts.display, parts.trackers
        self.recorded = recorded
        compressed = parts.experiment.compress_episodes
        self._episodes = self.folder.episodes_file(compressed=compressed)
        self._metrics = MetricsWriter(self.folder.metrics, resume=step)
        truncate_episodes(self.folder.episodes, recorded)
        self._page = GrowingPage(self.folder, self.display, yaml_config.encode(parts.experiment))
        self._ended = time.perf_counter()

    def write(self, number: int, step: Step, player: Player) -> None:
        """Log a step; ``time/step`` is the wall time since the last one was logged."""
        now = time.perf_counter()
        metrics = step.metrics | {"time/step": now - self._ended}
        self._ended = now
        self._metrics.write(number, metrics)
        self.trackers.log(number, metrics)
        self._record(step, player)
        self.recorded += sum(map(len, step.groups))
        for warning in step.warnings:
            self.display.say(f"warning at step {number}: {warning}")
        self._page.update()

    def _record(self, step: Step, player: Player) -> None:
        decode = player.agent.decode
        for group, credited in zip(step.groups, step.advantages, strict=True):
            for trajectory, advantages in zip(group, credited, strict=True):
                record = EpisodeRecord.of(trajectory, decode=decode, advantages=advantages)
                append(self._episodes, record)
