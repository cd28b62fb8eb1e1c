"""DAPO: four tricks for groups and clips (Yu et al. 2025, arXiv:2503.14476).

Dynamic sampling (a group must disagree), a clip that is wider upwards, the mean over tokens, and a
soft penalty for length; no KL penalty.

Differs from the paper: a task on which all episodes agree is tried again instead of replaced by
another, since the tasks of a step are fixed ahead of it; the group's deviation is added to 1e-6;
advantages are centred over the tokens of a task, since under a token mean they otherwise have a
negative mean where failures are long; the length bound is what the run allows an episode to write.
``paper()`` centres over episodes.

``released()`` is the agent papers' port in verl-agent: ten attempts, no penalty for length, and
``GRPO.released()`` with the wider clip: a win worth 10, statistics over turns, a fine of 0.1 on
malformed turns, the mean over all tokens, dual clip, entropy bonus and KL penalty. Not reproduced:
what ``GRPO.released()`` leaves out; the port draws new tasks, here the same task is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.batch.collate import returns_differ
from agentgym.credit.reward_shaping import overlong_penalty
from agentgym.credit.transforms import Transform, chain
from agentgym.credit.weights import mask_truncated, mean_over_informative_tokens, mean_over_tokens
from agentgym.losses.surrogates import policy_gradient
from agentgym.rollout.collect import Collect, EpisodePlayer
from agentgym.types import Task, Trajectory
from agentgym.utils.bounds import above, at_least, within
from agentgym.utils.concurrency import gather
from agentgym_trainers.grpo import GRPO


def until_mixed(n: int, attempts: int) -> Collect:
    """``n`` episodes of one task, played again until their returns differ; the last try stays."""

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        group: list[Trajectory] = []
        for attempt in range(attempts):
            samples = range(attempt * n, (attempt + 1) * n)
            group = await gather(play(task, sample) for sample in samples)
            if returns_differ(group):
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
    """Episodes per task: G."""
    max_attempts: int = 3
    """Most times a task is played before its group is taken as it is."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1: epsilon_low."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1: epsilon_high."""
    dual_clip: float | None = None
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
    overlong: Literal["penalty", "none"] = "penalty"
    """Whether long episodes lose reward."""
    max_episode_tokens: int | None = None
    """Tokens an episode may write, at which the penalty is 1: L_max. Unset: the turns of the run
    times its longest completion."""
    overlong_buffer: float = 0.2
    """Part of that length over which the penalty rises from 0: L_cache / L_max."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    kl_coef: float = 0.0
    """Weight of the KL divergence from the policy that training began with, per nat."""
    malformed_penalty: float = 0.0
    """Reward taken from a turn that holds no action; with ``group_statistics: turns`` only from
    the score of that turn, else from the return."""
    reward_scale: float = 1.0
    """Factor on all rewards."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What is one sample in the mean and standard deviation of a group."""
    baseline_over: Literal["tokens", "episodes"] = "tokens"
    """Mean over which the advantages of a task are 0."""
    counted_tokens: Literal["informative", "all"] = "informative"
    """Tokens in the mean of the loss: those with an advantage, or all."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "minibatches", "max_attempts", "max_episode_tokens")
        within(0, 1, self, "clip_ratio_low", "overlong_buffer")
        above(0, self, "overlong_buffer", "reward_scale")
        at_least(0, self, "clip_ratio_high", "entropy_coef", "kl_coef", "malformed_penalty")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> DAPO:
        """The paper's setting; its longest answer has 20480 tokens."""
        return cls(max_attempts=10, max_episode_tokens=20480, baseline_over="episodes")

    @classmethod
    def released(cls) -> DAPO:
        """The agent papers' port."""
        return cls(
            max_attempts=10,
            dual_clip=3.0,
            overlong="none",
            entropy_coef=0.001,
            kl_coef=0.01,
            malformed_penalty=0.1,
            reward_scale=10.0,
            group_statistics="turns",
            baseline_over="episodes",
            counted_tokens="all",
        )

    def shaping(self, run: RunInfo) -> Transform:
        """What happens to rewards before those of the group are compared."""
        if self.overlong == "none":
            return chain()
        longest = self.max_episode_tokens or run.max_episode_tokens
        return overlong_penalty(longest, max(1, round(self.overlong_buffer * longest)))

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = GRPO(
            group_size=self.group_size,
            entropy_coef=self.entropy_coef,
            kl_coef=self.kl_coef,
            malformed_penalty=self.malformed_penalty,
            reward_scale=self.reward_scale,
            group_statistics=self.group_statistics,
            baseline_over=self.baseline_over,
        )
        every = self.counted_tokens == "all"
        weights = mean_over_tokens() if every else mean_over_informative_tokens()
        surrogate = policy_gradient(
            self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip
        )
        return Algorithm(
            collect=until_mixed(self.group_size, self.max_attempts),
            credit=chain(
                self.shaping(run),
                base.shaping(),
                base.advantage(),
                weights,
                *mask_truncated(self.truncated_episodes),
            ),
            updates=(Update(loss=base.regularised(surrogate), minibatches=self.minibatches),),
            reference=self.kl_coef > 0,
        )
