"""What episodes are played with, within which limits, and what that costs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np

from agentgym.engines import Engine
from agentgym.env.executor import Executor, MakeEnv, ThreadExecutor
from agentgym.rollout.agent import Agent
from agentgym.rollout.thought_limit import sample_within_thought_limit
from agentgym.types import Completion, Sampling, Task, Trajectory
from agentgym.utils.seeds import derive


@dataclass(frozen=True, kw_only=True)
class EpisodeLimits:
    """When an episode that the environment has not ended is truncated."""

    turns: int = 50
    """Completions, whether or not they held an action."""
    tokens: int = 4096
    """Longest context: prompts and completions together."""
    thought_tokens: int | None = None
    """Longest thought of a completion; a longer one is closed. None: no limit."""
    seconds: float | None = None
    """From the start of an episode to that of its last turn, waits included; None: no limit."""


@dataclass
class Usage:
    """Cost of playing, failed attempts and scouts included; a fork does not count its prefix."""

    turns: int = 0
    """Decisions executed: environment steps."""
    tokens: int = 0
    """Tokens that the engine sampled."""
    engine_seconds: float = 0.0
    """Seconds that episodes waited for the engine, summed over episodes."""
    env_seconds: float = 0.0
    """The same for their environments, from the call to the answer."""
    user_tokens: int = 0
    """Tokens that the models of simulated users read and wrote."""


class Sampled(NamedTuple):
    """What an engine has sampled."""

    completion: Completion
    forced: tuple[int, int]
    """Range of its tokens that were inserted to end a thought."""
    seconds: float
    """Spent waiting for it."""


class Running(Protocol):
    """An episode that holds an environment."""

    async def release(self) -> None:
        """Free what engine and environment hold for it."""


@dataclass(kw_only=True)
class EpisodeSetup:
    """What episodes are played with: agent, engine, environments and limits."""

    agent: Agent
    engine: Engine
    make_env: MakeEnv
    """Makes the environment of a task; called inside the executor."""
    executor: Executor = field(default_factory=ThreadExecutor)
    """Where environments run."""
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)
    sampling: Sampling = field(default_factory=Sampling)
    stream: str = "0"
    """Name of the run and the training step; part of every seed."""
    usage: Usage = field(default_factory=Usage)
    """Shared by all that is derived from this one."""
    rescore: Callable[[Trajectory], Awaitable[Trajectory]] | None = None
    """Gives finished episodes another score and reward; None: those of the environment."""
    running: set[Running] = field(default_factory=set)
    """Episodes whose environments are open."""

    def __post_init__(self) -> None:
        """Let the agent say what ends a completion."""
        self.sampling = replace(self.sampling, stop=self.agent.stop)

    async def complete(self, context: list[int], sampling: Sampling) -> Sampled:
        """A completion within the limit on thoughts.

        Raises:
            ContextTooLong: The context does not fit the engine's.
        """
        start = time.perf_counter()
        try:
            completion, forced = await sample_within_thought_limit(
                self.engine, self.agent, context, sampling, self.limits.thought_tokens
            )
        finally:
            seconds = time.perf_counter() - start
            self.usage.engine_seconds += seconds
        self.usage.tokens += len(completion.tokens) - (forced[1] - forced[0])
        return Sampled(completion, forced, seconds)

    async def finished(self, played: Trajectory) -> Trajectory:
        """The episode as collectors get it."""
        return played if self.rescore is None else await self.rescore(played)

    def rng(self, task: Task, name: str) -> np.random.Generator:
        """Randomness for choices about a task: a function of stream, task and name."""
        return np.random.default_rng(derive(self.stream, task.env, task.id, task.seed, name))
