"""Warm-up: imitate the world's oracle until the policy wins now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from agentgym.algorithm import Update
from agentgym.batch.batch import Batch, collate, token_mean
from agentgym.env.base import TextEnv
from agentgym.losses.surrogates import negative_log_likelihood
from agentgym.models.policy import Policy
from agentgym.rollout.demonstrations import Demonstration, demonstrate
from agentgym.rollout.player import derive
from agentgym.settings import ImitationSettings, OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.types import Task, Trajectory
from agentgym.utils.progress import Advance

PROBES = 20
"""Looks at how often the policy wins, spread evenly."""

IMITATION = Update(loss=negative_log_likelihood(), name="imitate")
"""What is minimised."""

Probe = Callable[[], Awaitable[float]]
"""Plays a few episodes with the weights as they are; the share that was won."""


def demonstrations(
    world: TextEnv,
    tasks: Sequence[Task],
    count: int,
    wanted: ImitationSettings,
    *,
    seed: int,
    advance: Advance,
) -> list[Demonstration]:
    """``count`` demonstrations of every task.

    Those that did not win are left out, unless slips are to be learned: a careless player loses.
    """
    found: list[Demonstration] = []
    for sample in range(count):
        for task in tasks:
            rng = np.random.default_rng(derive(seed, task.id, sample))
            found.append(
                demonstrate(
                    world, task, rng, random_action_rate=wanted.random_action_rate, sample=sample
                )
            )
            advance(len(found))
    return [shown for shown in found if shown.won or wanted.learn_random_actions]


def lay(shown: Sequence[Trajectory], reading: float) -> Batch:
    """Demonstrations as a batch whose weights say what is to be foretold.

    Args:
        shown: The demonstrations.
        reading: What all that was read weighs, where all that was done weighs 1.
    """
    batch = collate([shown])
    if not reading:
        return batch
    read = torch.tensor(
        [
            place < len(turn.prompt)
            for trajectory in shown
            for turn in trajectory.turns
            for place in range(len(turn.prompt) + len(turn.completion.tokens))
        ]
    )
    # Nothing comes before the first token of a row.
    read[batch.lengths.cumsum(0) - batch.lengths] = False
    weight = token_mean(batch.mask) + reading * token_mean(read)
    return batch.with_(mask=batch.mask | read, weight=weight)


async def imitate(
    policy: Policy,
    shown: Sequence[Trajectory],
    how: OptimizerSettings,
    wanted: ImitationSettings,
    *,
    seed: int,
    probe: Probe,
    advance: Advance,
) -> None:
    """Raise the likelihood of demonstrated actions, at most ``wanted.steps`` times.

    It ends early when the policy wins the share ``wanted.until`` of its episodes: imitation of
    perfect play would leave reinforcement nothing to find, too little of it nothing to start from.
    """
    # Without a horizon the learning rate stays: nobody knows yet when this will end.
    learner = Learner(policy, replace(how, learning_rate=wanted.learning_rate, warmup_steps=20))
    rng = np.random.default_rng(derive(seed, "imitation"))
    order: list[int] = []
    wins, steps = 0.0, wanted.max_steps
    for step in range(steps):
        while len(order) < wanted.batch_size:
            order += rng.permutation(len(shown)).tolist()
        batch = lay(
            [shown[order.pop()] for _ in range(wanted.batch_size)], wanted.observation_loss_weight
        )
        metrics = learner.update(batch, IMITATION, step)
        # The first quarter learns to speak; there is nothing to win yet.
        if wanted.until_success < 1 and step >= steps // 4 and step % max(1, steps // PROBES) == 0:
            wins = await probe()
        advance(step + 1, f"loss {metrics['imitate/loss']:.3f} nats per token, wins {wins:.2f}")
        if wins >= wanted.until_success:
            break
