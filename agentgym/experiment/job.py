"""A training run, stage by stage: prepare, warm up, evaluate, train, evaluate, report.

Every stage writes its result to the run folder and is skipped when the result exists, so an
interrupted run continues where it stopped; see ``agentgym.experiment.run_folder`` for the layout.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agentgym.algorithm import Algorithm, RunInfo
from agentgym.evaluation.plots import plot_run
from agentgym.evaluation.render import render
from agentgym.evaluation.report import Report
from agentgym.experiment.assemble import engines_of, executor_of, program_server_of
from agentgym.experiment.evaluations import evaluate_panel
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.parts import RunParts
from agentgym.experiment.reinforce import reinforce
from agentgym.experiment.report_page import read_run
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.run_trackers import trackers_of
from agentgym.experiment.sources import Objects, source_of, with_turn_limit
from agentgym.experiment.warm_start import warm_up
from agentgym.run_report.page import page
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.concurrency import run_sync
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display

if TYPE_CHECKING:
    from agentgym.experiment.cluster import ClusterRun


class Result(NamedTuple):
    """Evaluations before and after training."""

    before: Report
    after: Report


def run_info(experiment: Experiment) -> RunInfo:
    """What the algorithm of a run is built with."""
    if experiment.rollout.max_turns is None:
        experiment = with_turn_limit(experiment, source_of(experiment))
    rollout = experiment.rollout
    assert rollout.max_turns is not None, "set by with_turn_limit"
    return RunInfo(
        steps=max(1, experiment.steps),
        max_turns=rollout.max_turns,
        max_completion_tokens=rollout.max_completion_tokens,
        seed=experiment.seed,
    )


async def run(
    experiment: Experiment,
    algorithm: Algorithm,
    folder: RunFolder,
    display: Display,
    objects: Objects | None = None,
    cluster: ClusterRun | None = None,
) -> Result:
    """Run all stages; call again on the same folder to continue after an interruption."""
    server_model = None if experiment.server is None else experiment.model
    engines = engines_of(
        experiment,
        cuda_graphs=experiment.schedule.kind == "sync"
        or experiment.engine_device not in (None, "cuda", "cuda:0"),
        server_model=server_model,
    )
    async with (
        executor_of(experiment.rollout) as executor,
        engines,
        program_server_of(experiment) as server,
    ):
        trackers = trackers_of(experiment, folder, display)
        given = objects or Objects()
        job = Job(experiment, folder, display, executor, engines, given, trackers, server, cluster)
        try:
            return await _stages(job, algorithm)
        finally:
            trackers.finish()
            if cluster is not None:
                await cluster.close()


async def _stages(job: Job, algorithm: Algorithm) -> Result:
    folder = job.folder
    job.prepare("train", job.panel("train").tasks)
    if not folder.warm.exists():
        await warm_up(job)
    before = await evaluate_panel(job, folder.warm, "before", folder.evaluation("before"))
    if not folder.latest_step():
        job.trackers.log(0, before.metrics())
    if not folder.final.exists():
        await reinforce(job, algorithm)
    after = await _after(job, before)
    job.trackers.log(folder.taken(), after.metrics())
    job.report(before, after)
    return Result(before, after)


async def _after(job: Job, before: Report) -> Report:
    played = job.folder.evaluation("after")
    if job.experiment.steps:
        return await evaluate_panel(job, job.folder.final, "after", played)
    # The same weights with the same seeds would play the same episodes again.
    shutil.copyfile(job.folder.evaluation("before"), played)
    return before


@dataclass
class Job(RunParts):
    """The stages of one run."""

    def report(self, before: Report, after: Report) -> None:
        """Table, plot and page; writes ``report.txt``, ``report.png`` and ``report.html``."""
        table = render(after, before)
        write_atomic(self.folder.table, table)
        if metrics := read_metrics(self.folder.metrics):
            plot_run(metrics, before, after, self.folder.plot)
        settings = yaml_config.encode(self.experiment)
        run = read_run(self.folder, running=False, settings=settings)
        write_atomic(self.folder.page, page([run]))
        self.display.say(table)
        self.display.say(self.folder.summary())


def run_blocking(
    experiment: Experiment,
    algorithm: Algorithm,
    folder: RunFolder,
    display: Display,
    objects: Objects | None = None,
    cluster: ClusterRun | None = None,
) -> Result:
    """``run`` for synchronous callers; holds the lock of the folder.

    Raises:
        ConfigError: Another process holds the folder.
    """
    with folder.locked():
        return run_sync(lambda: run(experiment, algorithm, folder, display, objects, cluster))
