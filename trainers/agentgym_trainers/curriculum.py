"""Schedules that ramp up and fade out, and a reward for acting at all: the curriculum of SPEAR."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.turns import turns_of
from agentgym.credit.reward_shaping import add_episode_reward
from agentgym.credit.transforms import State, Transform
from agentgym.losses.compose import Schedule


def ramp(steps: int) -> Schedule:
    """From 0 at the first step to 1 at ``steps``, along half a cosine; then 1."""
    return lambda step: 0.5 * (1 - math.cos(math.pi * min(step / steps, 1.0)))


def fade(steps: int) -> Schedule:
    """From 1 at the first step to 0 at ``steps``, along half a cosine; then 0."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def count_acts(
    acts: Float[Tensor, " E"], won: Bool[Tensor, " E"], each: float = 0.1
) -> Float[Tensor, " E"]:
    """A tenth for every act, at most 1."""
    return (each * acts).clamp(max=1)


def count_acts_unless_won(
    acts: Float[Tensor, " E"], won: Bool[Tensor, " E"], each: float = 0.1
) -> Float[Tensor, " E"]:
    """The same for an episode that did not win; 1 for one that did, if it acted at all."""
    return torch.where(won, (acts > 0).to(acts), count_acts(acts, won, each))


def reward_acting(size: float, schedule: Schedule, form: Literal["flat", "count"]) -> Transform:
    """Add ``size`` times the schedule times the bonus for the turns that held an action."""
    bonus = {"flat": count_acts_unless_won, "count": count_acts}[form]

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        turns = turns_of(batch)
        acts = turns.per_episode(turns.first(batch.parsed).to(batch.reward), batch)
        paid = size * schedule(step) * bonus(acts, batch.won)
        return add_episode_reward(batch, paid), state

    return Transform(lambda: (), apply)
