"""DAPO: four tricks for groups and clips (Yu et al. 2025, arXiv:2503.14476).

Dynamic sampling (a group must disagree), a clip that is wider upwards, the mean over tokens, and a
soft penalty for length; no KL penalty.

Differs from the paper: a task whose episodes agree is tried again instead of replaced by another,
since the tasks of a step are fixed ahead of it; the group's deviation is added to 1e-6.
``released()`` is the agent papers' port: ten attempts, statistics over turns, and a KL penalty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import About, Algorithm, Update
from agentgym.credit.advantages import group_advantage_over_turns
from agentgym.credit.reward_shaping import overlong_penalty
from agentgym.credit.transforms import chain, group_advantage
from agentgym.credit.weights import mask_truncated, mean_over_informative_tokens
from agentgym.losses.compose import add, scale
from agentgym.losses.surrogates import kl_to_reference, policy_gradient
from agentgym.rollout.collect import Collect, EpisodePlayer
from agentgym.types import Task, Trajectory
from agentgym.utils.bounds import at_least, within
from agentgym.utils.concurrency import gather


def until_mixed(n: int, attempts: int) -> Collect:
    """``n`` episodes of one task, played again until their returns differ; the last try stays."""

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        group: list[Trajectory] = []
        for attempt in range(attempts):
            samples = range(attempt * n, (attempt + 1) * n)
            group = await gather(play(task, sample) for sample in samples)
            if len({t.reward for t in group if t.stop.scored}) > 1:
                break
        return group

    return collect


@dataclass(frozen=True, kw_only=True)
class DAPO:
    """Decoupled clip and dynamic sampling policy optimisation."""

    about: ClassVar[About] = About(
        "2503.14476",
        "n episodes, again while they agree",
        "return less a penalty for length, centred and scaled within the task",
        "surrogate with a wider upper clip, mean over tokens",
    )

    group_size: int = 8
    """Episodes per task."""
    max_attempts: int = 3
    """Most times a task is played before its group is taken as it is."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    max_episode_tokens: int = 1600
    """Tokens an episode may write; at this length the penalty is 1."""
    overlong_buffer: int = 320
    """Tokens before that over which the penalty rises from 0."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What counts once in the mean and standard deviation of a group."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 4
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches", "max_attempts", "overlong_buffer")
        within(0, 1, self, "clip_ratio_low")
        at_least(0, self, "clip_ratio_high", "kl_coef")
        at_least(self.overlong_buffer, self, "max_episode_tokens")

    @classmethod
    def paper(cls) -> DAPO:
        """The paper's setting; its longest answer has 20480 tokens."""
        return cls(max_attempts=10, max_episode_tokens=20480, overlong_buffer=4096)

    @classmethod
    def released(cls) -> DAPO:
        """The agent papers' port."""
        return cls(
            max_attempts=10,
            max_episode_tokens=20480,
            overlong_buffer=4096,
            kl_coef=0.01,
            group_statistics="turns",
        )

    def build(self) -> Algorithm:
        """Compose it."""
        advantage = {"episodes": group_advantage, "turns": group_advantage_over_turns}
        surrogate = policy_gradient(self.clip_ratio_low, self.clip_ratio_high)
        loss = add(surrogate, scale(self.kl_coef, kl_to_reference())) if self.kl_coef else surrogate
        return Algorithm(
            collect=until_mixed(self.group_size, self.max_attempts),
            credit=chain(
                overlong_penalty(self.max_episode_tokens, self.overlong_buffer),
                advantage[self.group_statistics](),
                mean_over_informative_tokens(),
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(Update(loss=loss, minibatches=self.minibatches),),
            reference=self.kl_coef > 0,
        )
