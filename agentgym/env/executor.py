"""Where a world lives while it is played: the seam between a rollout and processes."""

from __future__ import annotations

import asyncio
import copy
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

import gymnasium

from agentgym.env.base import TextEnv
from agentgym.errors import ConfigError
from agentgym.types import Task

T = TypeVar("T")
Env = gymnasium.Env[str, str]
MakeEnv = Callable[[Task], Env]
"""Makes the world of a task, not yet reset."""


class ResetResult(NamedTuple):
    """What ``reset`` gives, as in Gymnasium."""

    observation: str
    info: dict[str, Any]


class StepResult(NamedTuple):
    """What ``step`` gives, as in Gymnasium."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class EnvHandle(Protocol):
    """One world under way; one call at a time. Calls raise whatever the world raises.

    Raises:
        EnvTimeout: No answer in time; the world is gone.
        EnvLost: The world lost its place through no fault of its own.
    """

    async def reset(self, task: Task) -> ResetResult:
        """Start the task."""

    async def step(self, action: str) -> StepResult:
        """Act."""

    async def fork(self) -> EnvHandle:
        """An independent world in the same state."""

    async def close(self) -> None:
        """Give back what it holds; a world that is gone is closed already."""


class Executor(Protocol):
    """Makes worlds and keeps them: in this process (``ThreadExecutor``) or in others (``Pool``)."""

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """The world of a task."""


@dataclass(frozen=True)
class ThreadExecutor:
    """Worlds live in this process and are called in its threads: nothing protects from them.

    A thread cannot be stopped, so a world that hangs holds up its episode for ever. All that can be
    done is to say so: a ``RuntimeWarning`` names the task and what the world was asked.
    """

    warn_after: float = 60.0
    """Seconds after which a world that has not answered is warned of."""
    max_threads: int = 64
    """Calls at once: as many slow ones hold up nobody."""

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """The world of a task."""
        threads = _threads(self.max_threads)
        env = await _call(threads, make, task, undo=_close)
        return _Local(env, self.warn_after, threads)


@cache
def _threads(width: int) -> ThreadPoolExecutor:
    """For all worlds of the process; a thread is made when no other is idle."""
    return ThreadPoolExecutor(width, "world")


@dataclass(frozen=True)
class _Local:
    env: Env
    warn_after: float
    threads: ThreadPoolExecutor

    async def reset(self, task: Task) -> ResetResult:
        with self._watched(f"to start {task.id!r}"):
            return ResetResult(*await _call(self.threads, reset_env, self.env, task))

    async def step(self, action: str) -> StepResult:
        with self._watched(f"{action[:60]!r}"):
            return StepResult(*await _call(self.threads, step_env, self.env, action))

    async def fork(self) -> EnvHandle:
        with self._watched("to fork"):
            twin = await _call(self.threads, fork_env, self.env, undo=_close)
            return _Local(twin, self.warn_after, self.threads)

    @contextmanager
    def _watched(self, asked: str) -> Iterator[None]:
        alarm = asyncio.get_running_loop().call_later(self.warn_after, self._warn, asked)
        try:
            yield
        finally:
            alarm.cancel()

    def _warn(self, asked: str) -> None:
        bare = self.env.unwrapped
        named = f", task {bare.task_id!r}," if isinstance(bare, TextEnv) and bare.task_id else ""
        warnings.warn(
            f"{type(bare).__name__}{named} has not answered for {self.warn_after:g} s; the call is "
            f"{asked}. If it hangs, the run hangs with it: a world in this process cannot be "
            f"stopped, one in a process of its own can (`--rollout.workers 1`)",
            RuntimeWarning,
            stacklevel=2,
        )

    async def close(self) -> None:
        await _call(self.threads, _close, self.env)


async def _call(
    threads: ThreadPoolExecutor,
    function: Callable[..., T],
    *args: Any,
    undo: Callable[[T], None] = lambda result: None,
) -> T:
    """Call in a thread, which cannot be stopped: whoever is cancelled waits for it to return.

    So a world is in one call at a time, and what was made for nobody is undone.
    """
    running = asyncio.get_running_loop().run_in_executor(threads, partial(function, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if running.exception() is None:
            await asyncio.to_thread(undo, running.result())
        raise


def _close(env: Env) -> None:
    env.close()


def reset_env(env: Env, task: Task) -> tuple[str, dict[str, Any]]:
    """Start a task: its seed is the seed of everything random in it."""
    return env.reset(seed=task.seed, options={"task": task.id})


def step_env(env: Env, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
    """Act; the reward as a plain number."""
    observation, reward, terminated, truncated, info = env.step(action)
    return observation, float(reward), terminated, truncated, info


def fork_env(env: Env) -> Env:
    """An independent copy of a world in the same state, with the wrappers around it.

    Raises:
        ConfigError: The world is no ``TextEnv``, so it cannot be copied.
    """
    if isinstance(env, gymnasium.Wrapper):
        twin = copy.copy(env)
        twin.env = fork_env(env.env)
        return twin
    if not isinstance(env, TextEnv):
        raise ConfigError(f"{type(env).__name__} cannot be forked, expected an agentgym.TextEnv")
    return env.fork()
