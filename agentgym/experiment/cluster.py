"""A run on a cluster: what its players and engines are made of, and how rank 0 asks them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agentgym.cluster.broadcast import Broadcaster
from agentgym.cluster.connect import bundle, connect, disconnect, place, start_in
from agentgym.cluster.engines import EngineActor, EngineFacts, EnginePool, PublishingEngine
from agentgym.cluster.players import ClusterGroups, Losses, PlayerActor, Playing
from agentgym.cluster.ranks import run_ranks
from agentgym.cluster.roster import Roster
from agentgym.distributed.process_group import launched
from agentgym.engines import Engine
from agentgym.engines.factory import EngineFactory
from agentgym.errors import ConfigError
from agentgym.evaluation.evaluate import PlayEpisode
from agentgym.experiment.assemble import engines_of, executor_of, program_server_of
from agentgym.experiment.job import run_info
from agentgym.experiment.parts import RunParts
from agentgym.experiment.plan import Plan
from agentgym.experiment.result import TrainResult
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.sources import Objects
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.rollout.player import Player
from agentgym.rollout.setup import Usage
from agentgym.settings import ClusterSettings, Experiment
from agentgym.training.trainer import Trainer
from agentgym.types import Task, Trajectory
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display

CALLS = 4000
"""Most calls in flight of one process."""


def check_cluster(experiment: Experiment, objects: Objects | None) -> None:
    """Refuse what processes on other machines cannot have.

    Raises:
        ConfigError: Naming it.
    """
    given = objects or Objects()
    held = given.env or given.tools or given.model or given.tokenizer or given.agent_program
    if held:
        raise ConfigError(
            f"processes of a cluster cannot have the Python object {held!r}: name an environment, "
            f"a model or a function by its file instead"
        )
    if launched():
        raise ConfigError(
            "the ranks of a cluster are started by Ray: leave `torchrun` out and set "
            "`--cluster.trainers`"
        )
    if experiment.server is not None:
        raise ConfigError(
            "a cluster starts its own engines: leave `--server` out and set `--cluster.engines`"
        )
    adapters = experiment.engine != "local" and experiment.lora.sync == "adapters"
    if experiment.cluster.sync == "broadcast" and experiment.lora.rank is not None and adapters:
        raise ConfigError(
            "`--cluster.sync broadcast` sends whole weights: leave it out for adapters alone, or "
            "set `--lora.sync merged`"
        )


@dataclass
class GivenEngine(EngineFactory):
    """A factory that has its engine already."""

    engine: Engine | None = None

    def make(
        self, model: CausalLM | str | Path, tokenizer: Tokenizer, *, slots: int, context: int
    ) -> Engine:
        """The given engine."""
        assert self.engine is not None, "it was given"
        return self.engine


@dataclass(frozen=True)
class PlayingRecipe:
    """What a player's process is made of."""

    plan: Plan
    root: Path
    """Run folder."""
    checkpoint: Path

    @asynccontextmanager
    async def __call__(self, engines: EnginePool | None) -> AsyncIterator[Playing]:
        """The player of this process, closed on exit."""
        experiment = _share(self.plan.experiment, self.plan.experiment.cluster.players)
        given = None if engines is None else engines.session()
        factory = engines_of(experiment) if given is None else GivenEngine(engine=given)
        async with (
            executor_of(experiment.rollout) as executor,
            factory,
            program_server_of(experiment) as server,
        ):
            parts = RunParts(
                experiment, RunFolder(self.root), Display(), executor, factory, server=server
            )
            split, count = experiment.panel.split, experiment.panel.tasks
            parts.prepare("train", parts.panel("train").tasks)
            parts.prepare(split, parts.panel(split).head(count).tasks)
            if given is None:
                tokenizer, model = parts.trainable(self.checkpoint, changes=False)
            else:
                tokenizer, model = parts.tokenizer(self.checkpoint), self.checkpoint
            algorithm = self.plan.algo.build(run_info(experiment))
            yield Playing(parts.training_player(tokenizer, model), algorithm.collect)


@dataclass(frozen=True)
class EngineRecipe:
    """What an engine's process is made of."""

    plan: Plan
    root: Path
    """Run folder."""
    checkpoint: Path

    @contextmanager
    def __call__(self) -> Iterator[Engine]:
        """The engine of this process, closed on exit."""
        experiment = _share(self.plan.experiment, self.plan.experiment.cluster.engines)
        factory, rollout = engines_of(experiment), experiment.rollout
        parts = RunParts(experiment, RunFolder(self.root), Display(), engines=factory)
        tokenizer, model = parts.trainable(self.checkpoint, changes=False)
        try:
            yield factory.make(
                model, tokenizer, slots=rollout.concurrency, context=rollout.max_context_tokens
            )
        finally:
            factory.close()


def _share(experiment: Experiment, processes: int) -> Experiment:
    """The settings of one of several processes, which divide the episodes in flight."""
    each = -(-experiment.rollout.concurrency // processes)
    return replace(experiment, rollout=replace(experiment.rollout, concurrency=each))


class ClusterRun:
    """Players and engines of a run; they are started when the first checkpoint is played.

    Args:
        plan: Of the run.
        folder: Its folder, on a file system that all machines see.
        report: Called with a line about each death and each replacement.
    """

    def __init__(self, plan: Plan, folder: RunFolder, report: Callable[[str], None]) -> None:
        self._plan, self._report = plan, report
        self._root = folder.root.resolve()
        self._warm = folder.warm
        self._players: Roster | None = None
        self._engines: Roster | None = None
        self._held: Path | None = None
        """Checkpoint with the weights that the samplers have."""

    async def training(self, parts: RunParts, checkpoint: Path, tokenizer: Tokenizer) -> Player:
        """Rank 0's player, which does not play; its engine publishes weights."""
        engine = await self._open()
        self._held = None  # A resumed trainer publishes the weights of its checkpoint.
        return replace(parts, engines=GivenEngine(engine=engine)).training_player(
            tokenizer, checkpoint
        )

    @contextmanager
    def following(self, trainer: Trainer) -> Iterator[None]:
        """Give engines that start meanwhile the weights of a trainer, when these are broadcast."""
        samplers, learner = self._samplers(), trainer.learner
        adapters = trainer.player.engine.takes_adapters
        # The engines sample with the weights before an update until the next publication.
        keep = self._plan.experiment.schedule.kind == "one-step-off"
        samplers.source = lambda: learner.weights(adapters=adapters)
        trainer.changing = partial(samplers.retire, keep=keep)
        try:
            yield
        finally:
            samplers.retire(keep=False)
            samplers.source = None

    def groups(self, usage: Usage, step: int) -> ClusterGroups:
        """Groups that the players play from a step on; ``usage`` gets what they cost."""
        folder = RunFolder(self._root)
        before, keep = losses_before(folder, step), partial(_keep, folder)
        keep(before)
        return replace(self._groups(usage), before=before, keep=keep)

    def _groups(self, usage: Usage) -> ClusterGroups:
        assert self._players is not None, "it was opened"
        return ClusterGroups(self._players, self._engines, usage)

    async def evaluating(self, parts: RunParts, checkpoint: Path) -> PlayEpisode:
        """Plays episodes of an evaluation with the weights of a checkpoint."""
        engine = await self._open()
        if self._held != checkpoint:
            _, model = parts.trainable(checkpoint, changes=False)
            weights = Policy(model).weights(adapters=engine.takes_adapters)
            await asyncio.to_thread(engine.load, weights, 0)
            self._held = checkpoint
        groups = self._groups(Usage())
        stream, temperature = f"{parts.experiment.seed}/evaluation", parts.panel_temperature

        async def play(task: Task, sample: int) -> Trajectory:
            return await groups.episode(task, sample, stream, temperature)

        return play

    async def close(self) -> None:
        """End players and engines."""
        for roster in (self._players, self._engines):
            if roster is not None:
                await roster.close()

    async def _open(self) -> Engine:
        """Start what is not running yet; the engine that publishes to what samples.

        All begin with the weights before training, a checkpoint that stays.
        """
        settings = self._plan.experiment.cluster
        if self._players is None:
            where = self._root, self._warm.resolve()
            if settings.engines:
                make = EngineRecipe(self._plan, *where)
                self._engines = self._roster("engine", EngineActor, bundle(), lambda: (make,))
                await self._engines.open()
            recipe = PlayingRecipe(self._plan, *where)
            needs = {"CPU": 1.0} if self._engines else bundle()
            self._players = self._roster(
                "player", PlayerActor, needs, lambda: (recipe, *self._sampling())
            )
            await self._players.open()
            self._held = self._warm
        samplers = self._samplers()
        if settings.sync == "broadcast" and samplers.broadcaster is None:
            on_gpus = torch.cuda.is_available() and samplers.about.stream_device == "cuda"
            backend = "nccl" if on_gpus else "gloo"
            samplers.broadcaster = Broadcaster(backend, settings.sync_timeout)
        return PublishingEngine(samplers, samplers.about)

    def _samplers(self) -> Roster:
        samplers = self._engines or self._players
        assert samplers is not None, "it was opened"
        return samplers

    def _sampling(self) -> tuple[list[Any] | None, EngineFacts | None]:
        """The engines that players sample with, and what is known about them."""
        if self._engines is None:
            return None, None
        return [seat.actor for seat in self._engines.seats], self._engines.about

    def _roster(
        self, name: str, kind: type, needs: Any, arguments: Callable[[], tuple[Any, ...]]
    ) -> Roster:
        settings = self._plan.experiment.cluster
        size = getattr(settings, f"{name}s")
        group = place(f"{name}s", [needs] * size, "SPREAD", settings.placement_timeout)

        def start(number: int) -> Any:
            return start_in(group, number, needs, kind, *arguments(), calls=CALLS)

        return Roster(name, size, start, self._report, self._tell_players)

    def _tell_players(self) -> None:
        """Tell the players which engines there are now."""
        if self._engines is not None and self._players is not None:
            engines = [seat.actor for seat in self._engines.seats]
            for seat in self._players.seats:
                seat.actor.use.remote(engines)


def losses_before(folder: RunFolder, step: int) -> Losses:
    """The losses of a run that begins, or that continues from a step."""
    if not folder.losses.exists():
        return Losses()
    held = Losses(**json.loads(folder.losses.read_text()))
    again = held.repeated_steps + max(0, folder.taken() - step)
    return replace(held, restarts=held.restarts + 1, repeated_steps=again)


def _keep(folder: RunFolder, losses: Losses) -> None:
    write_atomic(folder.losses, json.dumps(asdict(losses)))


def run_on_cluster(
    settings: ClusterSettings,
    folder: RunFolder,
    begin: Callable[..., TrainResult],
    resume: Callable[..., TrainResult],
    display: Display,
) -> TrainResult:
    """Run the stages on ranks of a cluster, and again from the last checkpoint when one dies.

    Args:
        settings: Of the cluster.
        folder: Of the run, on a file system that all machines see.
        begin: Begins the run; called with ``display`` on every rank.
        resume: Continues the run of a folder.
        display: Where the lines of rank 0 are printed.

    Raises:
        ConfigError: There is no such cluster, or it has no room.
        MissingExtra: Ray is not installed.
    """
    connect(settings)
    resumed = folder.config.exists()

    def work() -> Callable[[Display], TrainResult]:
        first = resumed or not folder.config.exists()
        return partial(_on_rank, begin if first else partial(resume, folder.root))

    try:
        result: TrainResult = run_ranks(settings, work, folder.taken, display)
    except KeyboardInterrupt:
        display.say(
            f"stopped: {folder.saved()}; continue with: agentgym train --resume {folder.root}"
        )
        raise
    finally:
        disconnect()
    return result


def _on_rank(stages: Callable[..., TrainResult], display: Display) -> TrainResult:
    return stages(display=display)
