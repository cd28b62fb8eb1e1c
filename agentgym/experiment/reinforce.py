"""The stage of reinforcement learning: training steps, their logs and checkpoints."""

from __future__ import annotations

import asyncio
import math
from contextlib import ExitStack, closing
from typing import Any

from agentgym.algorithm import Algorithm
from agentgym.experiment.checkpoints import Checkpoints, load_state
from agentgym.experiment.facts import TrainFacts
from agentgym.experiment.failed_step import keep_failed_step
from agentgym.experiment.parts import RunParts
from agentgym.experiment.ranks import make_learner
from agentgym.experiment.step_log import StepLog
from agentgym.training.curriculum import Curriculum
from agentgym.training.schedule import Scheduler, make_scheduler, with_importance_correction
from agentgym.training.trainer import Trainer


async def reinforce(parts: RunParts, algorithm: Algorithm) -> None:
    """Train; writes checkpoints, ``metrics.jsonl`` and ``episodes.jsonl``."""
    experiment = parts.experiment
    start = parts.folder.latest_step()
    begin = parts.folder.warm if start is None else start
    state: dict[str, Any] = {} if start is None else load_state(start)
    tokenizer, model = parts.trainable(begin)
    if parts.cluster is None:
        player = parts.training_player(tokenizer, model)
    else:
        player = await parts.cluster.training(parts, begin, tokenizer)
    whole = with_importance_correction(algorithm, experiment.schedule)
    learner = make_learner(parts, model, whole, begin)
    checkpoints = Checkpoints(parts.folder, learner, tokenizer, background=experiment.save_async)
    with closing(learner), checkpoints, ExitStack() as following:
        trainer = Trainer(whole, learner, player, alarms=experiment.alarms)
        if parts.cluster is not None:
            following.enter_context(parts.cluster.following(trainer))
        if state:
            trainer.restore(state, start)
        if parts.cluster is not None:
            # After the restored usage is in its place, to which the groups add.
            trainer.groups = parts.cluster.groups(player.usage, trainer.step)
        await _train(parts, checkpoints, trainer, state)
        checkpoints.save(parts.folder.final)


async def _train(
    parts: RunParts, checkpoints: Checkpoints, trainer: Trainer, state: dict[str, Any]
) -> None:
    """Take the remaining steps by the configured schedule."""
    wanted, tasks = parts.experiment, parts.panel("train").tasks
    curriculum = Curriculum(tasks, wanted.tasks_per_step, wanted.seed, wanted.curriculum)
    curriculum.restore(state.get("curriculum", {}))
    schedule = make_scheduler(wanted.schedule, trainer, curriculum, state.get("schedule", {}))
    try:
        recorded = state.get("recorded", 0)
        await _take_steps(parts, checkpoints, trainer, schedule, curriculum, recorded)
    finally:
        await schedule.close()


async def _take_steps(
    parts: RunParts,
    checkpoints: Checkpoints,
    trainer: Trainer,
    schedule: Scheduler,
    curriculum: Curriculum,
    recorded: int,
) -> None:
    """Train to the end; ``recorded`` is the number of episodes of the steps so far."""
    experiment, player, learner = parts.experiment, trainer.player, trainer.learner
    log = StepLog(parts, step=trainer.step, recorded=recorded)
    facts = TrainFacts()
    budget = math.inf if experiment.max_env_steps is None else experiment.max_env_steps
    with parts.display.stage("train", experiment.max_env_steps or experiment.steps) as advance:
        while trainer.step < experiment.steps and player.usage.turns < budget:
            with keep_failed_step(
                parts.folder, learner.whole_model, checkpoints.tokenizer, learner
            ):
                step = await schedule.step()
            curriculum.record(step.groups)
            step = step._replace(metrics=step.metrics | curriculum.metrics())
            log.write(trainer.step, step, player)
            done = trainer.step if experiment.max_env_steps is None else player.usage.turns
            advance(done, *facts.of(step.metrics))
            if trainer.step % experiment.save_every == 0 and trainer.step < experiment.steps:
                state = {
                    "schedule": schedule.state(),
                    "curriculum": curriculum.state(),
                    "recorded": log.recorded,
                }
                where = parts.folder.step(trainer.step)
                await asyncio.to_thread(checkpoints.save, where, trainer.state() | state)
