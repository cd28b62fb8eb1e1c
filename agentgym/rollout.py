"""Playing one episode: the only loop that joins world, agent and engine."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium

from agentgym.agent import Agent, Scene
from agentgym.engines import Engine
from agentgym.errors import ConfigError, MalformedAction, MissingExtra, UnknownTask
from agentgym.types import Sampling, Stop, Task, Trajectory, Turn

Env = gymnasium.Env[str, str]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to give up on an episode that the world has not ended."""

    turns: int = 50
    """Completions, whether or not they held an action."""
    tokens: int = 4096
    """Length of the context, read and written together."""


def derive(*names: object) -> int:
    """A seed of 63 bits that depends on every name and on nothing else."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(kw_only=True)
class Player:
    """Plays episodes: worlds in threads, the engine in the event loop.

    The draw of a completion is seeded by (stream, task, sample, turn), so that a result depends
    neither on how many episodes are in flight nor on which ends first.
    """

    agent: Agent
    engine: Engine
    make: Callable[[Task], Env]
    """Makes the world of a task; called in a thread."""
    limits: Limits = field(default_factory=Limits)
    sampling: Sampling = field(default_factory=Sampling)
    concurrency: int = 64
    """Episodes in flight."""
    stream: str = "0"
    """Names the run and the training step; part of every seed."""

    def __post_init__(self) -> None:
        """Count the episodes in flight."""
        self._slots = asyncio.Semaphore(self.concurrency)
        self.sampling = replace(self.sampling, stop=self.agent.stop)

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode. A world that breaks ends it as ``Stop.ABORTED``, with the reason.

        Raises:
            UnknownTask: The world has no such task.
            MissingExtra: The world's package is not installed.
        """
        async with self._slots:
            env = await asyncio.to_thread(self.make, task)
            try:
                return await self._play(_Episode(env, task, sample))
            finally:
                await asyncio.to_thread(env.close)

    async def _play(self, episode: _Episode) -> Trajectory:
        stop: Stop | None = None
        error = ""
        try:
            await episode.open()
            while stop is None:
                stop = await self._turn(episode)
        except _Broken as problem:
            stop, error = Stop.ABORTED, str(problem)
        self.engine.finish(episode.context)
        return episode.close(stop, error)

    async def _turn(self, episode: _Episode) -> Stop | None:
        """Read, write, act; why the episode ended, if it did."""
        prompt, fresh = self.agent.read(episode.scene, episode.turns)
        context = list(prompt) if fresh else [*episode.context, *prompt]
        if len(context) + self.sampling.max_tokens > self.limits.tokens:
            return Stop.MAX_TOKENS
        task, number = episode.task, len(episode.turns)
        seed = derive(self.stream, task.env, task.id, task.seed, episode.sample, number)
        completion = await self.engine.generate(context, replace(self.sampling, seed=seed))
        episode.context = [*context, *completion.tokens]
        stop = None
        try:
            action = self.agent.parse(completion)
        except MalformedAction as problem:
            turn = Turn(prompt, completion, "", str(problem), 0.0, fresh, False, False)
        else:
            answer, stop = await episode.act(action)
            turn = Turn(prompt, completion, action, *answer, fresh=fresh, valid=episode.valid)
        episode.turns.append(turn)
        return stop or (Stop.MAX_TURNS if len(episode.turns) >= self.limits.turns else None)


@dataclass
class _Episode:
    """What changes while one episode is played."""

    env: Env
    task: Task
    sample: int
    opening: str = ""
    turns: list[Turn] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def scene(self) -> Scene:
        """What the agent is shown now."""
        observation = self.turns[-1].observation if self.turns else self.opening
        actions = tuple(self.info.get("admissible_commands", ()))
        return Scene(self.info["goal"], self.opening, observation, actions)

    @property
    def valid(self) -> bool:
        """The world accepted the last action."""
        return bool(self.info["action_valid"])

    async def open(self) -> None:
        """Start the task."""
        self.opening, self.info = await _world(
            self.env.reset, seed=self.task.seed, options={"task": self.task.id}
        )

    async def act(self, action: str) -> tuple[tuple[str, float], Stop | None]:
        """Step the world: its answer and reward, and why it ended, if it did."""
        observation, reward, done, cut, self.info = await _world(self.env.step, action)
        stop = Stop.TERMINATED if done else Stop.MAX_TURNS if cut else None
        return (observation, float(reward)), stop

    def close(self, stop: Stop, error: str) -> Trajectory:
        """The frozen record of it."""
        return Trajectory(
            task=self.task,
            sample=self.sample,
            goal=str(self.info.get("goal", "")),
            opening=self.opening,
            turns=tuple(self.turns),
            stop=stop,
            score=float(self.info.get("score", 0.0)),
            won=bool(self.info.get("won", False)),
            task_type=str(self.info.get("task_type", "")),
            error=error,
        )


class _Broken(Exception):
    """A world raised."""


async def _world(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call into a world, in a thread; what it raises is data on the episode.

    The one place that catches everything: a world is other people's code.
    """
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except (UnknownTask, MissingExtra, ConfigError):
        raise
    except Exception as problem:
        raise _Broken(f"{type(problem).__name__}: {problem}") from problem
