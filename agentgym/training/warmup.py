"""Warm-up: imitate the environment's oracle until the policy wins sometimes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from agentgym.algorithm import Update
from agentgym.batch.batch import Batch, token_mean
from agentgym.batch.collate import collate
from agentgym.env.base import TextEnv
from agentgym.losses.surrogates import negative_log_likelihood
from agentgym.models.policy import Policy
from agentgym.rollout.demonstrations import Demonstration, demonstrate
from agentgym.settings import ImitationSettings, OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.types import Task, Trajectory
from agentgym.utils.progress import Advance, Fact
from agentgym.utils.seeds import derive

PROBE_COUNT = 20
"""Measurements of the success rate during imitation, evenly spaced."""
WARMUP_STEPS = 20
"""Optimizer steps of linear learning-rate warm-up."""

IMITATION = Update(loss=negative_log_likelihood(), name="imitate")
"""The loss of imitation."""

Probe = Callable[[], Awaitable[float]]
"""Plays a few episodes with the current weights and returns their success rate."""


def demonstrations(
    world: TextEnv,
    tasks: Sequence[Task],
    count: int,
    settings: ImitationSettings,
    *,
    seed: int,
    advance: Advance,
) -> list[Demonstration]:
    """``count`` demonstrations of every task.

    Lost ones are left out, unless random actions are to be learned: with them, losing is part of
    the behaviour.
    """
    found: list[Demonstration] = []
    for sample in range(count):
        for task in tasks:
            rng = np.random.default_rng(derive(seed, task.id, sample))
            found.append(
                demonstrate(
                    world, task, rng, random_action_rate=settings.random_action_rate, sample=sample
                )
            )
            advance(len(found))
    return [shown for shown in found if shown.won or settings.learn_random_actions]


def demonstration_batch(shown: Sequence[Trajectory], observation_weight: float) -> Batch:
    """Demonstrations as a batch, weighted for imitation.

    Args:
        shown: The demonstrations.
        observation_weight: Loss weight of observation tokens, where action tokens have 1.
    """
    batch = collate([shown])
    if not observation_weight:
        return batch
    read = torch.tensor(
        [
            place < len(turn.prompt)
            for trajectory in shown
            for turn in trajectory.turns
            for place in range(len(turn.prompt) + len(turn.completion.tokens))
        ]
    )
    # The first token of a row has no context to be predicted from.
    read[batch.lengths.cumsum(0) - batch.lengths] = False
    weight = token_mean(batch.mask) + observation_weight * token_mean(read)
    return batch.with_(mask=batch.mask | read, weight=weight)


async def imitate(
    policy: Policy,
    shown: Sequence[Trajectory],
    optimizer: OptimizerSettings,
    settings: ImitationSettings,
    *,
    seed: int,
    probe: Probe,
    advance: Advance,
) -> None:
    """Raise the likelihood of demonstrated actions, for at most ``settings.max_steps`` steps.

    It ends early at the success rate ``settings.until_success``: imitation of perfect play would
    leave nothing for reinforcement learning to improve, too little imitation nothing to start from.
    """
    # Without a horizon the learning rate stays constant, since the last step is not known.
    learner = Learner(
        policy,
        replace(optimizer, learning_rate=settings.learning_rate, warmup_steps=WARMUP_STEPS),
    )
    rng = np.random.default_rng(derive(seed, "imitation"))
    order: list[int] = []
    success, steps = 0.0, settings.max_steps
    for step in range(steps):
        while len(order) < settings.batch_size:
            order += rng.permutation(len(shown)).tolist()
        batch = demonstration_batch(
            [shown[order.pop()] for _ in range(settings.batch_size)],
            settings.observation_loss_weight,
        )
        metrics = learner.update(batch, IMITATION, step)
        # In the first quarter the policy hardly writes actions yet; measuring would waste time.
        due = step >= steps // 4 and step % max(1, steps // PROBE_COUNT) == 0
        if settings.until_success < 1 and due:
            success = await probe()
        loss = metrics["imitate/loss"]
        facts = Fact("loss", f"{loss:.3f} nats per token"), Fact("success", f"{success:.2f}")
        advance(step + 1, *facts)
        if success >= settings.until_success:
            break
