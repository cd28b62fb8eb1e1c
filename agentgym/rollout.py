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
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn

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
                return await self._play(env, task, sample)
            finally:
                await asyncio.to_thread(env.close)

    async def _play(self, env: Env, task: Task, sample: int) -> Trajectory:
        context: list[int] = []
        turns: list[Turn] = []
        info: dict[str, Any] = {}
        stop: Stop | None = None
        observation = opening = error = ""
        try:
            options = {"task": task.id}
            observation, info = await _world(env.reset, seed=task.seed, options=options)
            opening = observation
            while stop is None:
                turn, info, stop = await self._turn(env, info, opening, turns, context, task, sample)
                if turn is not None:
                    turns.append(turn)
        except _Broken as problem:
            stop, error = Stop.ABORTED, str(problem)
        self.engine.finish(context)
        return Trajectory(
            task=task,
            sample=sample,
            goal=str(info.get("goal", "")),
            opening=opening,
            turns=tuple(turns),
            stop=stop,
            score=float(info.get("score", 0.0)),
            won=bool(info.get("won", False)),
            error=error,
        )

    async def _turn(
        self,
        env: Env,
        info: dict[str, Any],
        opening: str,
        turns: list[Turn],
        context: list[int],
        task: Task,
        sample: int,
    ) -> tuple[Turn | None, dict[str, Any], Stop | None]:
        observation = turns[-1].observation if turns else opening
        actions = tuple(info.get("admissible_commands", ()))
        prompt, fresh = self.agent.read(Scene(info["goal"], opening, observation, actions), turns)
        length = (0 if fresh else len(context)) + len(prompt)
        if length + self.sampling.max_tokens > self.limits.tokens:
            return None, info, Stop.MAX_TOKENS
        if fresh:
            context.clear()
        context += prompt
        seed = derive(self.stream, task.env, task.id, task.seed, sample, len(turns))
        completion = await self.engine.generate(context, replace(self.sampling, seed=seed))
        context += completion.tokens
        turn, info, stop = await self._act(env, info, prompt, fresh, completion)
        if stop is None and len(turns) + 1 >= self.limits.turns:
            stop = Stop.MAX_TURNS
        return turn, info, stop

    async def _act(
        self,
        env: Env,
        info: dict[str, Any],
        prompt: tuple[int, ...],
        fresh: bool,
        completion: Completion,
    ) -> tuple[Turn, dict[str, Any], Stop | None]:
        try:
            action = self.agent.parse(completion)
        except MalformedAction as problem:
            turn = Turn(prompt, completion, "", str(problem), 0.0, fresh, False, False)
            return turn, info, None
        observation, reward, done, cut, info = await _world(env.step, action)
        stop = Stop.TERMINATED if done else Stop.MAX_TURNS if cut else None
        valid = bool(info["action_valid"])
        turn = Turn(prompt, completion, action, observation, float(reward), fresh, True, valid)
        return turn, info, stop


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
