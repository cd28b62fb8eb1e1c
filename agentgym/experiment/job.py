"""A training run, stage by stage: prepare, warm up, evaluate, train, evaluate, report.

Every stage writes its result to the run folder and is skipped when the result exists, so an
interrupted run continues where it stopped; see ``agentgym.experiment.run_folder`` for the layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from agentgym.algorithm import Algorithm, RunInfo
from agentgym.errors import ConfigError
from agentgym.evaluation.evaluate import EvalOptions, PlayEpisode, evaluate
from agentgym.evaluation.files import default_path
from agentgym.evaluation.paired import check_panels
from agentgym.evaluation.plots import plot_run
from agentgym.evaluation.records import Decode
from agentgym.evaluation.render import render
from agentgym.evaluation.report import Report
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.facts import EvalFacts
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.parts import RunParts
from agentgym.experiment.reinforce import reinforce
from agentgym.experiment.report_page import read_run
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.run_trackers import trackers_of
from agentgym.experiment.sources import Objects, is_policy, source_of, with_turn_limit
from agentgym.experiment.warm_start import warm_up
from agentgym.rollout.policies import PolicyPlayer
from agentgym.run_report.page import page
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.concurrency import run_sync
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display


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
) -> Result:
    """Run all stages; call again on the same folder to continue after an interruption."""
    server_model = None if experiment.server is None else experiment.model
    engines = engines_of(
        experiment,
        cuda_graphs=experiment.schedule.kind == "sync"
        or experiment.engine_device not in (None, "cuda", "cuda:0"),
        server_model=server_model,
    )
    async with executor_of(experiment.rollout) as executor, engines:
        trackers = trackers_of(experiment, folder, display)
        job = Job(experiment, folder, display, executor, engines, objects or Objects(), trackers)
        try:
            return await _stages(job, algorithm)
        finally:
            trackers.finish()


async def _stages(job: Job, algorithm: Algorithm) -> Result:
    folder = job.folder
    job.prepare()
    if not folder.warm.exists():
        await warm_up(job)
    before = await job.evaluate(folder.warm, "before", folder.evaluation("before"))
    if not folder.latest_step():
        job.trackers.log(0, before.metrics())
    if not folder.final.exists():
        await reinforce(job, algorithm)
    after = await job.evaluate(folder.final, "after", folder.evaluation("after"))
    job.trackers.log(folder.taken(), after.metrics())
    job.report(before, after)
    return Result(before, after)


@dataclass
class Job(RunParts):
    """The stages of one run."""

    def prepare(self) -> None:
        """Prepare the tasks of the splits in use, such as compiled games."""
        for split in dict.fromkeys(("train", self.experiment.panel.split)):
            self.prepare_split(split)

    def prepare_split(self, split: str) -> None:
        """The same for one split."""
        bare = self.world()
        with self.display.stage(f"prepare: {split}", len(bare.tasks(split))) as advance:
            bare.prepare(split, lambda done, total: advance(done))
        bare.close()

    async def evaluate(
        self,
        checkpoint: str | Path,
        name: str,
        path: Path | None = None,
        before: Report | None = None,
    ) -> Report:
        """Play the frozen panel with a model; writes one JSON line per episode.

        Args:
            checkpoint: Folder or hub id of the model.
            name: Shown with the progress.
            path: The file; unset: one in ``evals`` named after panel, model and settings.
            before: A report that the new one is going to be compared with.

        Raises:
            ConfigError: ``before`` is a report on another panel.
        """
        wanted = self.experiment.panel
        panel = self.panel(wanted.split).head(wanted.tasks)
        if before is not None:
            check_panels(before.panel, panel)
        spec = self.spec(checkpoint)
        path = path or default_path(panel, spec)
        play, decode = self._evaluated(checkpoint)
        watched = EvalFacts(play)
        with self.display.stage(f"evaluate: {name}", len(panel) * wanted.episodes) as advance:
            return await evaluate(
                panel,
                watched,
                episodes=wanted.episodes,
                path=path,
                spec=spec,
                options=EvalOptions(
                    concurrency=self.experiment.rollout.concurrency,
                    decode=decode,
                    progress=lambda done, total: advance(done, *watched.facts()),
                ),
            )

    def _evaluated(self, checkpoint: str | Path) -> tuple[PlayEpisode, Decode | None]:
        """What plays a panel: a model, or a policy without one."""
        if is_policy(checkpoint, self.experiment):
            turns = self.experiment.rollout.max_turns
            assert turns is not None, "set in __post_init__"
            return PolicyPlayer(
                name=str(checkpoint),
                make_env=self.source.factory(turns),
                max_turns=turns,
                stream=f"{self.experiment.seed}/evaluation",
            ), None
        tokenizer, model = self.loaded(checkpoint)
        player = self.player(tokenizer, model, "evaluation", self.panel_temperature)
        return player, player.agent.decode

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
) -> Result:
    """``run`` for synchronous callers; holds the lock of the folder.

    Raises:
        ConfigError: Another process holds the folder.
    """
    with folder.locked():
        return run_sync(lambda: run(experiment, algorithm, folder, display, objects))


def evaluate_blocking(
    experiment: Experiment,
    path: Path | None,
    display: Display,
    before: Report | None = None,
    objects: Objects | None = None,
) -> Report:
    """Evaluate ``experiment.model`` on its panel; an existing file at ``path`` is continued.

    Raises:
        ConfigError: No model is given, or ``before`` is a report on another panel.
    """
    if experiment.model is None:
        raise ConfigError(
            "an evaluation needs a model: a Hugging Face folder, a hub id or a GGUF file"
        )
    model = experiment.model
    return run_sync(lambda: _evaluate(experiment, model, path, display, before, objects))


async def _evaluate(
    experiment: Experiment,
    model: str | Path,
    path: Path | None,
    display: Display,
    before: Report | None,
    objects: Objects | None,
) -> Report:
    async with (
        executor_of(experiment.rollout) as executor,
        engines_of(experiment, report=display.say) as engines,
    ):
        folder = RunFolder(Path() if path is None else path.parent)
        job = Job(experiment, folder, display, executor, engines, objects or Objects())
        job.prepare_split(experiment.panel.split)
        return await job.evaluate(model, experiment.panel.split, path, before)
