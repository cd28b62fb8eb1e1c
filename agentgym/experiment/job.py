"""A training run, stage by stage: prepare, warm up, evaluate, train, evaluate, report.

Every stage writes its result to the run folder and is skipped when the result exists, so an
interrupted run continues where it stopped; see ``agentgym.experiment.run_folder`` for the layout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.algorithm import Algorithm, RunInfo
from agentgym.errors import ConfigError
from agentgym.evaluation.evaluate import EvalOptions, PlayEpisode, evaluate
from agentgym.evaluation.files import default_path
from agentgym.evaluation.paired import check_panels
from agentgym.evaluation.plots import plot_run
from agentgym.evaluation.records import Decode, EpisodeRecord, append
from agentgym.evaluation.render import render
from agentgym.evaluation.report import Report
from agentgym.experiment.assemble import engines_of, executor_of
from agentgym.experiment.failed_step import keep_failed_step
from agentgym.experiment.metrics_file import MetricsWriter, read_metrics, truncate_episodes
from agentgym.experiment.parts import RunParts
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects, is_policy, source_of, with_turn_limit
from agentgym.models import from_scratch
from agentgym.models.lora import merge_lora
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.rollout.demonstrations import (
    Demonstration,
    demonstration_texts,
    to_trajectory,
)
from agentgym.rollout.player import Player, derive
from agentgym.rollout.policies import PolicyPlayer
from agentgym.settings import Experiment
from agentgym.training.learner import Learner
from agentgym.training.metrics import episode_metrics
from agentgym.training.schedule import Scheduler, Tasks, make_scheduler, with_importance_correction
from agentgym.training.trainer import Step, Trainer, task_of
from agentgym.training.warmup import demonstrations, imitate
from agentgym.types import Task
from agentgym.utils.concurrency import gather, run_sync
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display

PROBE_TASKS = 64
"""Training tasks played to measure the success of the warm-up."""


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
        job = Job(experiment, folder, display, executor, engines, objects or Objects())
        job.prepare()
        if not folder.warm.exists():
            await job.warm_up()
        before = await job.evaluate(folder.warm, "before", folder.evaluation("before"))
        if not folder.final.exists():
            await job.reinforce(algorithm)
        after = await job.evaluate(folder.final, "after", folder.evaluation("after"))
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

    async def warm_up(self) -> None:
        """Make or load the model and imitate the oracle; writes ``checkpoints/warm``."""
        experiment, wanted = self.experiment, self.experiment.imitation
        raw = experiment.model is None
        imitates = wanted.max_steps > 0 and (raw or wanted.pretrained)
        # Without imitation, a tokenizer is still trained on one demonstration of each task.
        shown = self._demonstrations(wanted.demos_per_task if imitates else int(raw))
        if experiment.model is None:
            text = demonstration_texts(each for each in shown if each.sample == 0)
            tokenizer = from_scratch.make_tokenizer(text, experiment.scratch.vocab_size)
            model = from_scratch.make_model(
                tokenizer,
                experiment.scratch,
                context=experiment.rollout.max_context_tokens,
                seed=derive(experiment.seed, "weights"),
            )
        else:
            tokenizer, model = self.trainable(experiment.model, changes=imitates)
        if imitates:
            await self._imitate(tokenizer, model, shown)
        self.folder.save(self.folder.warm, model, tokenizer)

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
        with self.display.stage(f"evaluate: {name}", len(panel) * wanted.episodes) as advance:
            return await evaluate(
                panel,
                play,
                episodes=wanted.episodes,
                path=path,
                spec=spec,
                options=EvalOptions(
                    concurrency=self.experiment.rollout.concurrency,
                    decode=decode,
                    progress=lambda done, total: advance(done),
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

    async def reinforce(self, algorithm: Algorithm) -> None:
        """Train; writes checkpoints, ``metrics.jsonl`` and ``episodes.jsonl``."""
        experiment = self.experiment
        start = self.folder.latest_step()
        begin = self.folder.warm if start is None else start
        state: dict[str, Any] = {} if start is None else self.folder.load_state(start)
        tokenizer, model = self.trainable(begin)
        player = self.player(tokenizer, model, "train")
        policy = Policy(model, temperature=experiment.rollout.temperature)
        learner = Learner(
            policy,
            experiment.optimizer,
            seed=derive(experiment.seed, "updates"),
            horizon=experiment.steps,
        )
        whole = with_importance_correction(algorithm, experiment.schedule)
        trainer = Trainer(whole, learner, player, alarms=experiment.alarms)
        if state:
            trainer.restore(state)
        schedule = make_scheduler(
            experiment.schedule, trainer, self._tasks(), state.get("schedule", {})
        )
        try:
            await self._take_steps(tokenizer, trainer, schedule, state.get("recorded", 0))
        finally:
            await schedule.close()
        self.folder.save(self.folder.final, model, tokenizer)

    async def _take_steps(
        self, tokenizer: Tokenizer, trainer: Trainer, schedule: Scheduler, recorded: int
    ) -> None:
        """Train to the end; ``recorded`` is the number of episodes of the steps so far."""
        experiment, player, learner = self.experiment, trainer.player, trainer.learner
        model = learner.policy.model
        metrics = MetricsWriter(self.folder.metrics, resume=trainer.step)
        truncate_episodes(self.folder.episodes, recorded)
        budget = math.inf if experiment.max_env_steps is None else experiment.max_env_steps
        with self.display.stage("train", experiment.max_env_steps or experiment.steps) as advance:
            while trainer.step < experiment.steps and player.usage.turns < budget:
                with keep_failed_step(self.folder, model, tokenizer, learner):
                    step = await schedule.step()
                metrics.write(trainer.step, step.metrics)
                self._record(step, player)
                recorded += sum(len(group) for group in step.groups)
                for warning in step.warnings:
                    self.display.say(f"warning at step {trainer.step}: {warning}")
                done = trainer.step if experiment.max_env_steps is None else player.usage.turns
                advance(done, _note(step.metrics))
                if trainer.step % experiment.save_every == 0 and trainer.step < experiment.steps:
                    where = self.folder.step(trainer.step)
                    state = {"schedule": schedule.state(), "recorded": recorded}
                    self.folder.save(where, model, tokenizer, trainer.state() | state)

    def _tasks(self) -> Tasks:
        """Tasks of a training step, as a function of its number."""
        tasks, count = self.panel("train").tasks, self.experiment.tasks_per_step

        def of(step: int) -> list[Task]:
            return [task_of(tasks, step * count + i, self.experiment.seed) for i in range(count)]

        return of

    def report(self, before: Report, after: Report) -> None:
        """Table and plot; writes ``report.txt`` and ``report.png``."""
        table = render(after, before)
        write_atomic(self.folder.table, table)
        if metrics := read_metrics(self.folder.metrics):
            plot_run(metrics, before, after, self.folder.plot)
        self.display.say(table)
        self.display.say(self.folder.summary())

    def _demonstrations(self, count: int) -> list[Demonstration]:
        """``count`` demonstrations of each training task."""
        if not count:
            return []
        bare, tasks = self.world(), self.panel("train").tasks
        with self.display.stage("demonstrations", count * len(tasks)) as advance:
            shown = demonstrations(
                bare,
                tasks,
                count,
                self.experiment.imitation,
                seed=self.experiment.seed,
                advance=advance,
            )
        bare.close()
        if not shown:
            raise ConfigError(
                f"{self.experiment.env} has no oracle to imitate: set `--imitation.max-steps 0` "
                f"and give a model with `--model`"
            )
        return shown

    async def _imitate(
        self, tokenizer: Tokenizer, model: CausalLM, shown: list[Demonstration]
    ) -> None:
        experiment, wanted = self.experiment, self.experiment.imitation
        agent = self.agent(tokenizer)
        player = self.player(tokenizer, model, "probe")
        tasks = self.panel("train").tasks[:PROBE_TASKS]

        async def probe() -> float:
            player.engine.load(merge_lora(model).state_dict(), 0)
            played = await gather(player(task, 0) for task in tasks)
            return episode_metrics([played]).get("episode/success", 0.0)

        with (
            self.display.stage("imitate", wanted.max_steps) as advance,
            keep_failed_step(self.folder, model, tokenizer, None),
        ):
            await imitate(
                Policy(model),
                [
                    to_trajectory(each, agent, learn_random_actions=wanted.learn_random_actions)
                    for each in shown
                ],
                experiment.optimizer,
                wanted,
                seed=experiment.seed,
                probe=probe,
                advance=advance,
            )

    def _record(self, step: Step, player: Player) -> None:
        for group in step.groups:
            for trajectory in group:
                append(
                    self.folder.episodes, EpisodeRecord.of(trajectory, decode=player.agent.decode)
                )


def _note(metrics: dict[str, float]) -> str:
    shown = {
        "success": metrics.get("episode/success", 0.0),
        "reward": metrics.get("episode/reward", 0.0),
        "turns": metrics.get("episode/turns", 0.0),
        "entropy": metrics.get("policy/entropy", 0.0),
        "kl": metrics.get("update/kl", 0.0),
    }
    numbers = " ".join(f"{name} {value:.3g}" for name, value in shown.items())
    return f"{numbers} {metrics['tokens_per_second'] / 1000:.1f}k tok/s"


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
