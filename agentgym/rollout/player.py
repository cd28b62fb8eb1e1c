"""Playing one episode: the only loop that joins environment, agent and engine."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from agentgym.engines import Engine
from agentgym.env.executor import EnvHandle, Executor, MakeEnv, ThreadExecutor
from agentgym.errors import ConfigError, ContextTooLong, MalformedAction
from agentgym.rollout.agent import Agent, AgentInput
from agentgym.rollout.env_calls import EnvFailed, calls_of, env_call
from agentgym.rollout.thought_limit import sample_within_thought_limit
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn
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


@dataclass(kw_only=True)
class Player:
    """Plays episodes: environments run where the executor puts them, the engine in the event loop.

    Each completion is seeded by (stream, task, sample, turn), so results depend neither on the
    number of episodes in flight nor on the order in which they end.
    """

    agent: Agent
    engine: Engine
    make_env: MakeEnv
    """Makes the environment of a task; called inside the executor."""
    executor: Executor = field(default_factory=ThreadExecutor)
    """Where environments run."""
    limits: EpisodeLimits = field(default_factory=EpisodeLimits)
    sampling: Sampling = field(default_factory=Sampling)
    concurrency: int = 64
    """Episodes in flight."""
    retries: int = 5
    """Further attempts at an episode whose environment failed, with the same seeds."""
    stream: str = "0"
    """Name of the run and the training step; part of every seed."""
    usage: Usage = field(default_factory=Usage)
    """Shared by all players derived from this one."""
    rescore: Callable[[Trajectory], Awaitable[Trajectory]] | None = None
    """Gives finished episodes another score and reward; None: those of the environment."""

    def __post_init__(self) -> None:
        """Set up the slots for episodes in flight."""
        self._open: set[Episode] = set()
        self._slots = asyncio.Semaphore(self.concurrency)
        self._queue = asyncio.Lock()
        self.sampling = replace(self.sampling, stop=self.agent.stop)

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode; if the environment fails, again, up to ``retries`` times.

        Raises:
            UnknownTask: The environment has no such task.
            MissingExtra: The package of the environment is not installed.
        """
        async with self._slots:
            return await self.play_reserved(task, sample)

    async def play_reserved(
        self, task: Task, sample: int, *, failed_attempts: tuple[Stop, ...] = ()
    ) -> Trajectory:
        """The same within a slot that the caller holds, after ``failed_attempts``."""
        while True:
            played = replace(await self.attempt(task, sample), failed_attempts=failed_attempts)
            if played.stop.scored or len(failed_attempts) >= self.retries:
                return await self.finished(played)
            failed_attempts = (*failed_attempts, played.stop)

    async def finished(self, played: Trajectory) -> Trajectory:
        """The episode as collectors get it."""
        return played if self.rescore is None else await self.rescore(played)

    async def attempt(self, task: Task, sample: int) -> Trajectory:
        """Play an episode once, whether or not the environment fails."""
        episode = await self.begin(task, sample)
        try:
            while not episode.done:
                await episode.generate()
                await episode.step()
        finally:
            await episode.release()
        return episode.trajectory()

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

    async def begin(self, task: Task, sample: int) -> Episode:
        """Start an episode that the caller plays decision by decision and closes.

        The caller must hold a slot for it, see ``reserve``.
        """
        episode = Episode(self, task, sample)
        try:
            await episode.open()
        except BaseException:
            await episode.release()
            raise
        return episode

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for one episode that the caller plays itself, for example a fork."""
        async with self._slots:
            yield

    @asynccontextmanager
    async def reserve(self, count: int) -> AsyncIterator[Player]:
        """Reserve slots for ``count`` episodes at once, at most ``concurrency``.

        Episodes that the yielded player starts, and their forks, are discarded at the end if they
        were not closed, for example when a sibling failed. One caller reserves at a time, so two
        callers cannot deadlock.
        """
        wanted, held = min(count, self.concurrency), 0
        reserved = copy.copy(self)
        reserved._open = set()
        try:
            async with self._queue:
                while held < wanted:
                    await self._slots.acquire()
                    held += 1
            yield reserved
        finally:
            for episode in list(reserved._open):
                await episode.release()
            for _ in range(held):
                self._slots.release()

    def with_stream(self, stream: str) -> Player:
        """The same with the seeds of another stream, in the same slots."""
        twin = copy.copy(self)
        twin.stream = stream
        return twin

    def with_temperature_factor(self, factor: float) -> Player:
        """The same at ``factor`` times the temperature, in the same slots."""
        twin = copy.copy(self)
        temperature = factor * self.sampling.temperature
        twin.sampling = replace(self.sampling, temperature=temperature)
        return twin

    def rng(self, task: Task, name: str) -> np.random.Generator:
        """Randomness for choices about a task: a function of stream, task and name."""
        return np.random.default_rng(derive(self.stream, task.env, task.id, task.seed, name))


@dataclass(eq=False)
class Episode:
    """A running episode: ``generate``, then ``step``, until it is ``done``.

    Between the two it may be forked: the fork shares the environment state and the context up to
    this decision and samples the decision again.
    """

    player: Player
    task: Task
    sample: int
    env: EnvHandle | None = None
    """None before ``open``, and when that failed."""
    opening: str = ""
    turns: list[Turn] = field(default_factory=list)
    context: list[int] = field(default_factory=list)
    """Tokens of prompts and completions up to the last executed decision."""
    info: dict[str, Any] = field(default_factory=dict)
    manual: str = ""
    """How to act in this environment, from ``info`` at reset."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of the tools of the environment, from ``info`` at reset."""
    tool_instructions: str = ""
    """The text about tools in goal and manual, from ``info`` at reset."""
    stop: Stop | None = None
    error: str = ""
    shared_turns: int = 0
    """Leading turns taken over from the episode this one was forked from."""
    parent: int | None = None
    """Sample of that episode."""
    started_at: float = field(default_factory=time.monotonic)
    """Start, in seconds of the monotonic clock."""
    _pending: _Pending | None = None
    """The prompt and the completion of the next turn."""

    def __post_init__(self) -> None:
        """Register with the player until the environment is closed."""
        self.player._open.add(self)

    @property
    def done(self) -> bool:
        """The episode has ended."""
        return self.stop is not None

    @property
    def input(self) -> AgentInput:
        """What the agent is shown now."""
        observation = self.turns[-1].observation if self.turns else self.opening
        actions = tuple(self.info.get("admissible_commands", ()))
        return AgentInput(
            self.info["goal"],
            self.opening,
            observation,
            actions,
            self.manual,
            self.tools,
            self.tool_instructions,
            str(self.info.get("task_type", "")),
        )

    async def open(self) -> None:
        """Start the task."""
        with self._ends_on_failure():
            player, start = self.player, time.perf_counter()
            try:
                self.env = await env_call(player.executor.open(player.make_env, self.task))
                self.opening, self.info = await env_call(self.env.reset(self.task))
            finally:
                player.usage.env_seconds += time.perf_counter() - start
            self.manual = str(self.info.get("manual", ""))
            self.tools = tuple(self.info.get("tools", ()))
            self.tool_instructions = str(self.info.get("tool_instructions", ""))

    async def generate(self) -> Completion | None:
        """Sample a completion; None when there is no room or time, which ends the episode."""
        player, task = self.player, self.task
        allowed = player.limits.seconds
        if allowed is not None and time.monotonic() - self.started_at > allowed:
            self.stop = Stop.MAX_TIME
            return None
        prompt, fresh = player.agent.prompt(self.input, self.turns)
        context = list(prompt) if fresh else [*self.context, *prompt]
        room = min(player.limits.tokens, player.engine.context)
        if len(context) + player.sampling.max_tokens > room:
            if not self.turns and not player.usage.turns:
                raise ConfigError(
                    f"the first prompt of task {task.id!r} has {len(context)} tokens, which with "
                    f"{player.sampling.max_tokens} for a completion exceed the context of {room}: "
                    "raise `--rollout.max-context-tokens`, or take a model with a longer context"
                )
            self.stop = Stop.MAX_TOKENS
            return None
        seed = derive(player.stream, task.env, task.id, task.seed, self.sample, len(self.turns))
        sampling = replace(player.sampling, seed=seed)
        try:
            sampled = await player.complete(context, sampling)
        except ContextTooLong:
            self.stop = Stop.MAX_TOKENS
            return None
        self._pending = _Pending(prompt, fresh, *sampled)
        return sampled.completion

    def propose(self, completion: Completion) -> None:
        """Take a completion that was sampled elsewhere, instead of ``generate``.

        ``step`` executes it. Nothing is added to the usage in tokens.
        """
        prompt, fresh = self.player.agent.prompt(self.input, self.turns)
        self._pending = _Pending(prompt, fresh, completion, (0, 0), math.nan)

    async def step(self) -> None:
        """Parse the completion and execute its action; without a completion do nothing."""
        if self._pending is None:
            return
        prompt, fresh, completion, forced, seconds = self._pending
        self._pending = None
        self.player.usage.turns += 1
        past = [] if fresh else self.context
        read = [*past, *prompt]
        self.context = [*read, *completion.tokens]
        turn = partial(
            Turn,
            prompt,
            completion,
            fresh=fresh,
            forced=forced,
            thought_tokens=self.player.agent.count_thought_tokens(completion, read),
            sampling_seconds=seconds,
        )
        try:
            action = self.player.agent.parse(completion, read, self.tools)
        except MalformedAction as problem:
            self.turns.append(turn("", str(problem), 0.0, parsed=False, valid=False))
        else:
            with self._ends_on_failure():
                assert self.env is not None, "the episode is done"
                start = time.perf_counter()
                try:
                    result = await env_call(self.env.step(action))
                finally:
                    answered = time.perf_counter() - start
                    self.player.usage.env_seconds += answered
                observation, reward, terminated, truncated, self.info = result
                turn = partial(turn, calls=calls_of(self.info), env_seconds=answered)
                valid = bool(self.info["action_valid"])
                self.turns.append(turn(action, observation, float(reward), valid=valid))
                self.stop = Stop.TERMINATED if terminated else Stop.MAX_TURNS if truncated else None
        if self.stop is None and len(self.turns) >= self.player.limits.turns:
            self.stop = Stop.MAX_TURNS

    async def fork(self, sample: int) -> Episode:
        """A copy in the same state; a completion not yet executed is not copied.

        Nothing is played or sampled twice: the environment is copied (``TextEnv.fork``) and both
        episodes hold the same turn objects.
        """
        twin = replace(
            self,
            env=None,  # if the copy fails, the environment of the original must stay open
            sample=sample,
            turns=list(self.turns),
            context=list(self.context),
            info=dict(self.info),
            shared_turns=len(self.turns),
            parent=self.sample,
            _pending=None,
        )
        if self.env is None:
            return twin  # the original never opened and is done; so is its fork
        with twin._ends_on_failure():
            twin.env = await env_call(self.env.fork())
        return twin

    async def release(self) -> None:
        """Free what engine and environment hold for this episode."""
        self.player.engine.finish(self.context)
        await self.discard()

    async def discard(self) -> None:
        """Close the environment; the engine cache belongs to the episode this was forked from."""
        self.player._open.discard(self)
        if self.env is not None:
            await self.env.close()

    async def close(self) -> Trajectory:
        """Free all resources and return the finished trajectory."""
        await self.release()
        return await self.player.finished(self.trajectory())

    def trajectory(self) -> Trajectory:
        """The finished episode."""
        assert self.stop is not None, "the episode is not done"
        self.player.usage.user_tokens += int(self.info.get("user_tokens", 0))
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
            shared_turns=self.shared_turns,
            parent=self.parent,
            manual=self.manual,
            tools=self.tools,
        )

    @contextmanager
    def _ends_on_failure(self) -> Iterator[None]:
        """A failure of the environment ends the episode, with the reason."""
        try:
            yield
        except EnvFailed as problem:
            self.stop, self.error = problem.stop, str(problem)


class _Pending(NamedTuple):
    prompt: tuple[int, ...]
    fresh: bool
    """The prompt replaces the context."""
    completion: Completion
    forced: tuple[int, int]
    seconds: float
    """Time that the completion took."""
