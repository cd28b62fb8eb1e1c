"""Playing one episode: the only loop that joins world, agent and engine."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from agentgym.engines import Engine
from agentgym.env.executor import EnvHandle, Executor, MakeEnv, ThreadExecutor
from agentgym.errors import (
    ConfigError,
    EnvLost,
    EnvTimeout,
    MalformedAction,
    MissingExtra,
    UnknownTask,
)
from agentgym.rollout.agent import Agent, Scene
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EpisodeLimits:
    """When to give up on an episode that the world has not ended."""

    turns: int = 50
    """Completions, whether or not they held an action."""
    tokens: int = 4096
    """Length of the context, read and written together."""
    seconds: float | None = None
    """From the start of an episode to the start of its last turn, waiting included; none: any."""


def derive(*names: object) -> int:
    """A seed of 63 bits that depends on every name and on nothing else."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass
class Spent:
    """What playing has cost, forgotten attempts and scouts included; a fork shares its prefix."""

    turns: int = 0
    """Decisions carried out: steps of the world."""
    tokens: int = 0
    """Tokens that the engine wrote."""


@dataclass(kw_only=True)
class Player:
    """Plays episodes: worlds where the host keeps them, the engine in the event loop.

    The draw of a completion is seeded by (stream, task, sample, turn), so that a result depends
    neither on how many episodes are in flight nor on which ends first.
    """

    agent: Agent
    engine: Engine
    make: MakeEnv
    """Makes the world of a task; called where the host keeps it."""
    host: Executor = field(default_factory=ThreadExecutor)
    """Where worlds live."""
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)
    sampling: Sampling = field(default_factory=Sampling)
    concurrency: int = 64
    """Episodes in flight."""
    retries: int = 5
    """Further attempts at an episode whose ending is not scored, with the same seeds."""
    stream: str = "0"
    """Names the run and the training step; part of every seed."""
    spent: Spent = field(default_factory=Spent)
    """Shared by all players made from this one."""

    def __post_init__(self) -> None:
        """Count the episodes in flight."""
        self._open: set[Episode] = set()
        self._slots = asyncio.Semaphore(self.concurrency)
        self._queue = asyncio.Lock()
        self.sampling = replace(self.sampling, stop=self.agent.stop)

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode; one that the world's breaking spoils, again, ``retries`` times.

        Raises:
            UnknownTask: The world has no such task.
            MissingExtra: The world's package is not installed.
        """
        async with self._slots:
            return await self.whole(task, sample)

    async def whole(self, task: Task, sample: int, *, spoilt: tuple[Stop, ...] = ()) -> Trajectory:
        """The same within a seat that the caller holds; ``spoilt`` are attempts made so far."""
        while True:
            episode = await self.begin(task, sample)
            try:
                while not episode.over:
                    await episode.think()
                    await episode.act()
            finally:
                await episode.leave()
            played = replace(episode.record(), spoilt=spoilt)
            if played.stop.scored or len(spoilt) >= self.retries:
                return played
            spoilt = (*spoilt, played.stop)

    async def begin(self, task: Task, sample: int) -> Episode:
        """Start an episode that the caller plays decision by decision, and closes.

        Its place among the episodes in flight is the caller's to hold: see ``seats``.
        """
        episode = Episode(self, task, sample)
        try:
            await episode.open()
        except BaseException:
            await episode.leave()
            raise
        return episode

    @asynccontextmanager
    async def seats(self, count: int) -> AsyncIterator[Player]:
        """Room for ``count`` episodes at once, or for all there can be if that is fewer.

        Episodes that the yielded player begins, and their forks, are given up at the end if they
        were not closed, as when one beside them failed. One caller gathers seats at a time, so that
        two never wait for what the other holds.
        """
        wanted, held = min(count, self.concurrency), 0
        seated = copy.copy(self)
        seated._open = set()
        try:
            async with self._queue:
                while held < wanted:
                    await self._slots.acquire()
                    held += 1
            yield seated
        finally:
            for episode in list(seated._open):
                await episode.leave()
            for _ in range(held):
                self._slots.release()

    def named(self, stream: str) -> Player:
        """The same with the seeds of another stream, in the same seats."""
        twin = copy.copy(self)
        twin.stream = stream
        return twin

    def tempered(self, factor: float) -> Player:
        """The same at ``factor`` times the temperature, in the same seats."""
        twin = copy.copy(self)
        warm = factor * self.sampling.temperature
        twin.sampling = replace(self.sampling, temperature=warm)
        return twin

    def rng(self, task: Task, name: str) -> np.random.Generator:
        """Randomness for choices about a task, a function of the stream and the name."""
        return np.random.default_rng(derive(self.stream, task.env, task.id, task.seed, name))


@dataclass(eq=False)
class Episode:
    """One episode while it is played: ``think``, then ``act``, until it is ``over``.

    Between the two it may be forked: the other episode shares all that came before, of the world
    and of the context, and makes this decision anew.
    """

    player: Player
    task: Task
    sample: int
    world: EnvHandle | None = None
    """None before it is open, and when it could not be."""
    opening: str = ""
    turns: list[Turn] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    """Tokens read and written up to the last decision that was carried out."""
    info: dict[str, Any] = field(default_factory=dict)
    stop: Stop | None = None
    error: str = ""
    shared: int = 0
    """Leading turns taken over from the episode this one was forked from."""
    began: float = field(default_factory=time.monotonic)
    """When it did, in seconds of a clock that only counts."""
    _pending: tuple[tuple[int, ...], bool, Completion] | None = None
    """What was read for the next turn, whether it replaces the context, and what was written."""

    def __post_init__(self) -> None:
        """Be known to the player until the world is closed."""
        self.player._open.add(self)

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.stop is not None

    @property
    def scene(self) -> Scene:
        """What the agent is shown now."""
        observation = self.turns[-1].observation if self.turns else self.opening
        actions = tuple(self.info.get("admissible_commands", ()))
        return Scene(self.info["goal"], self.opening, observation, actions)

    async def open(self) -> None:
        """Start the task."""
        with self._breaking():
            player = self.player
            self.world = await _told(player.host.open(player.make, self.task))
            self.opening, self.info = await _told(self.world.reset(self.task))

    async def think(self) -> Completion | None:
        """Read and write; None when there is no room or time, which ends the episode."""
        player, task = self.player, self.task
        allowed = player.limits.seconds
        if allowed is not None and time.monotonic() - self.began > allowed:
            self.stop = Stop.MAX_TIME
            return None
        prompt, fresh = player.agent.read(self.scene, self.turns)
        context = list(prompt) if fresh else [*self.context, *prompt]
        room = min(player.limits.tokens, player.engine.context)
        if len(context) + player.sampling.max_tokens > room:
            self.stop = Stop.MAX_TOKENS
            return None
        seed = derive(player.stream, task.env, task.id, task.seed, self.sample, len(self.turns))
        completion = await player.engine.generate(context, replace(player.sampling, seed=seed))
        player.spent.tokens += len(completion.tokens)
        self._pending = prompt, fresh, completion
        return completion

    async def act(self) -> None:
        """Carry out what was written; nothing to do when nothing was."""
        if self._pending is None:
            return
        prompt, fresh, completion = self._pending
        self._pending = None
        self.player.spent.turns += 1
        past = [] if fresh else self.context
        self.context = [*past, *prompt, *completion.tokens]
        written = partial(
            Turn,
            prompt,
            completion,
            fresh=fresh,
            thought=self.player.agent.thought(completion),
        )
        try:
            action = self.player.agent.parse(completion)
        except MalformedAction as problem:
            self.turns.append(written("", str(problem), 0.0, parsed=False, valid=False))
        else:
            with self._breaking():
                assert self.world is not None, "the episode is over"
                answer = await _told(self.world.step(action))
                observation, reward, done, cut, self.info = answer
                valid = bool(self.info["action_valid"])
                self.turns.append(written(action, observation, float(reward), valid=valid))
                self.stop = Stop.TERMINATED if done else Stop.MAX_TURNS if cut else None
        if self.stop is None and len(self.turns) >= self.player.limits.turns:
            self.stop = Stop.MAX_TURNS

    async def fork(self, sample: int) -> Episode:
        """Another episode in the same state; a completion not yet acted on is not taken over.

        Nothing is played or written twice: the world is copied (``TextEnv.fork``) and the turns
        so far are the same objects.
        """
        twin = replace(
            self,
            world=None,  # a copy that fails must not close the world of the original
            sample=sample,
            turns=list(self.turns),
            context=list(self.context),
            info=dict(self.info),
            shared=len(self.turns),
            _pending=None,
        )
        if self.world is None:
            return twin  # over before it began, and so is this one
        with twin._breaking():
            twin.world = await _told(self.world.fork())
        return twin

    async def leave(self) -> None:
        """Give back what the engine and the world hold."""
        self.player.engine.finish(self.context)
        await self.abandon()

    async def abandon(self) -> None:
        """Close the world; what the engine holds belongs to the episode this was forked from."""
        self.player._open.discard(self)
        if self.world is not None:
            await self.world.close()

    async def close(self) -> Trajectory:
        """Leave, and return the finished record."""
        await self.leave()
        return self.record()

    def record(self) -> Trajectory:
        """The frozen record of it."""
        assert self.stop is not None, "the episode is not over"
        return Trajectory(
            task=self.task,
            sample=self.sample,
            goal=str(self.info.get("goal", "")),
            opening=self.opening,
            turns=tuple(self.turns),
            stop=self.stop,
            score=float(self.info.get("score", 0.0)),
            won=bool(self.info.get("won", False)),
            task_type=str(self.info.get("task_type", "")),
            error=self.error,
            shared=self.shared,
        )

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """What a world raises ends the episode, with the reason."""
        try:
            yield
        except _Broken as problem:
            self.stop, self.error = problem.stop, str(problem)


class _Broken(Exception):
    """A world raised."""

    def __init__(self, stop: Stop, problem: Exception) -> None:
        super().__init__(f"{type(problem).__name__}: {problem}")
        self.stop = stop


async def _told(answer: Awaitable[T]) -> T:
    """What a world answers; what it raises is data on the episode.

    The one place that catches everything: a world is other people's code.
    """
    try:
        return await answer
    except (UnknownTask, MissingExtra, ConfigError):
        raise
    except EnvTimeout as problem:
        raise _Broken(Stop.TOOL_TIMEOUT, problem) from problem
    except EnvLost as problem:
        raise _Broken(Stop.ABORTED, problem) from problem
    except Exception as problem:
        raise _Broken(Stop.ENV_ERROR, problem) from problem
