"""The stage before reinforcement learning: make or load the model, and imitate the oracle."""

from __future__ import annotations

import math

import numpy as np

from agentgym.errors import ConfigError
from agentgym.experiment.checkpoints import save_model
from agentgym.experiment.failed_step import keep_failed_step
from agentgym.experiment.parts import RunParts
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.rollout.demonstrations import (
    Demonstration,
    demonstration_texts,
    to_trajectory,
)
from agentgym.training.metrics import episode_metrics
from agentgym.training.warmup import demonstrations, imitate
from agentgym.types import Task
from agentgym.utils.concurrency import gather
from agentgym.utils.seeds import derive

PROBE_TASKS = 64
"""Training tasks played to measure the success of the warm-up."""


async def warm_up(parts: RunParts) -> None:
    """Make or load the model and imitate the oracle; writes ``checkpoints/warm``."""
    experiment, wanted = parts.experiment, parts.experiment.imitation
    raw = experiment.model is None
    imitates = wanted.max_steps > 0 and (raw or wanted.pretrained)
    # Without imitation, a tokenizer is still trained on one demonstration of each task.
    shown = _demonstrations(parts, wanted.demos_per_task if imitates else int(raw))
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
        tokenizer, model = parts.trainable(experiment.model, changes=imitates)
    if imitates:
        await _imitate(parts, tokenizer, model, shown)
    save_model(parts.folder, parts.folder.warm, model, tokenizer)


def _demonstrations(parts: RunParts, count: int) -> list[Demonstration]:
    """``count`` demonstrations of each training task."""
    if not count:
        return []
    model = parts.experiment.model
    tokenizer = None if model is None else parts.tokenizer(model)
    bare = parts.oracle_world(parts.action_format(tokenizer))
    tasks = parts.panel("train").tasks
    if model is not None:
        tasks, count = _needed(parts, tasks, count)
    with parts.display.stage("demonstrations", count * len(tasks)) as advance:
        shown = demonstrations(
            bare,
            tasks,
            count,
            parts.experiment.imitation,
            seed=parts.experiment.seed,
            advance=advance,
        )
    bare.close()
    if not shown:
        raise ConfigError(
            f"{parts.experiment.env} has no oracle to imitate: set `--imitation.max-steps 0` "
            f"and give a model with `--model`"
        )
    return shown


def _needed(parts: RunParts, tasks: tuple[Task, ...], count: int) -> tuple[tuple[Task, ...], int]:
    """Tasks and demonstrations of each: no more than the steps of imitation read once."""
    wanted = parts.experiment.imitation
    most = wanted.max_steps * wanted.batch_size
    if most < len(tasks):
        rng = np.random.default_rng(derive(parts.experiment.seed, "demonstrations"))
        tasks = tuple(tasks[n] for n in sorted(rng.permutation(len(tasks))[:most]))
    return tasks, min(count, math.ceil(most / len(tasks)))


async def _imitate(
    parts: RunParts, tokenizer: Tokenizer, model: CausalLM, shown: list[Demonstration]
) -> None:
    experiment, wanted = parts.experiment, parts.experiment.imitation
    agent = parts.agent(tokenizer)
    player = parts.native_player(tokenizer, model, "probe")
    tasks = parts.panel("train").tasks[:PROBE_TASKS]
    policy = Policy(model)

    async def probe() -> float:
        player.engine.load(policy.weights(adapters=player.engine.takes_adapters), 0)
        played = await gather(player(task, 0) for task in tasks)
        return episode_metrics([played]).get("episode/success", 0.0)

    with (
        parts.display.stage("imitate", wanted.max_steps) as advance,
        keep_failed_step(parts.folder, lambda: model, tokenizer, None),
    ):
        await imitate(
            policy,
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
