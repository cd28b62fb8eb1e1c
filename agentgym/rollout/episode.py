"""One episode, decision by decision."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from agentgym.env.executor import EnvHandle
from agentgym.errors import ConfigError, ContextTooLong, MalformedAction
from agentgym.rollout.agent import AgentInput
from agentgym.rollout.env_calls import EnvFailed, calls_of, env_call
from agentgym.rollout.setup import EpisodeSetup
from agentgym.types import Completion, Stop, Task, Trajectory, Turn
from agentgym.utils.seeds import derive


@dataclass(eq=False)
class Episode:
    """A running episode: ``generate``, then ``step``, until it is ``done``.

    Between the two it may be forked: the fork shares the environment state and the context up to
    this decision and samples the decision again.
    """

    setup: EpisodeSetup
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
        """Register with the setup until the environment is closed."""
        self.setup.running.add(self)

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
            setup, start = self.setup, time.perf_counter()
            try:
                self.env = await env_call(setup.executor.open(setup.make_env, self.task))
                self.opening, self.info = await env_call(self.env.reset(self.task))
            finally:
                setup.usage.env_seconds += time.perf_counter() - start
            self.manual = str(self.info.get("manual", ""))
            self.tools = tuple(self.info.get("tools", ()))
            self.tool_instructions = str(self.info.get("tool_instructions", ""))

    async def generate(self) -> Completion | None:
        """Sample a completion; None when there is no room or time, which ends the episode."""
        setup, task = self.setup, self.task
        allowed = setup.limits.seconds
        if allowed is not None and time.monotonic() - self.started_at > allowed:
            self.stop = Stop.MAX_TIME
            return None
        prompt, fresh = setup.agent.prompt(self.input, self.turns)
        context = list(prompt) if fresh else [*self.context, *prompt]
        room = min(setup.limits.tokens, setup.engine.context)
        if len(context) + setup.sampling.max_tokens > room:
            if not self.turns and not setup.usage.turns:
                raise ConfigError(
                    f"the first prompt of task {task.id!r} has {len(context)} tokens, which with "
                    f"{setup.sampling.max_tokens} for a completion exceed the context of {room}: "
                    "raise `--rollout.max-context-tokens`, or take a model with a longer context"
                )
            self.stop = Stop.MAX_TOKENS
            return None
        seed = derive(setup.stream, task.env, task.id, task.seed, self.sample, len(self.turns))
        sampling = replace(setup.sampling, seed=seed)
        try:
            sampled = await setup.complete(context, sampling)
        except ContextTooLong:
            self.stop = Stop.MAX_TOKENS
            return None
        self._pending = _Pending(prompt, fresh, *sampled)
        return sampled.completion

    def propose(self, completion: Completion) -> None:
        """Take a completion that was sampled elsewhere, instead of ``generate``.

        ``step`` executes it. Nothing is added to the usage in tokens.
        """
        prompt, fresh = self.setup.agent.prompt(self.input, self.turns)
        self._pending = _Pending(prompt, fresh, completion, (0, 0), math.nan)

    async def step(self) -> None:
        """Parse the completion and execute its action; without a completion do nothing."""
        if self._pending is None:
            return
        prompt, fresh, completion, forced, seconds = self._pending
        self._pending = None
        self.setup.usage.turns += 1
        past = [] if fresh else self.context
        read = [*past, *prompt]
        self.context = [*read, *completion.tokens]
        turn = partial(
            Turn,
            prompt,
            completion,
            fresh=fresh,
            forced=forced,
            thought_tokens=self.setup.agent.count_thought_tokens(completion, read),
            sampling_seconds=seconds,
        )
        try:
            action = self.setup.agent.parse(completion, read, self.tools)
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
                    self.setup.usage.env_seconds += answered
                observation, reward, terminated, truncated, self.info = result
                turn = partial(turn, calls=calls_of(self.info), env_seconds=answered)
                valid = bool(self.info["action_valid"])
                self.turns.append(turn(action, observation, float(reward), valid=valid))
                self.stop = Stop.TERMINATED if terminated else Stop.MAX_TURNS if truncated else None
        if self.stop is None and len(self.turns) >= self.setup.limits.turns:
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
        self.setup.engine.finish(self.context)
        await self.discard()

    async def discard(self) -> None:
        """Close the environment; the engine cache belongs to the episode this was forked from."""
        self.setup.running.discard(self)
        if self.env is not None:
            await self.env.close()

    async def close(self) -> Trajectory:
        """Free all resources and return the finished trajectory."""
        await self.release()
        return await self.setup.finished(self.trajectory())

    def trajectory(self) -> Trajectory:
        """The finished episode."""
        assert self.stop is not None, "the episode is not done"
        self.setup.usage.user_tokens += int(self.info.get("user_tokens", 0))
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
