"""Where environments run: the interface between rollouts and threads or processes."""

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
from agentgym.errors import ConfigError, EnvError
from agentgym.types import Task

T = TypeVar("T")
Env = gymnasium.Env[str, str]
MakeEnv = Callable[[Task], Env]
"""Makes the environment of a task, not yet reset."""


class ResetResult(NamedTuple):
    """What ``reset`` returns, as in Gymnasium."""

    observation: str
    info: dict[str, Any]
    """As in ``TextEnv``, with ``manual``."""


class StepResult(NamedTuple):
    """What ``step`` returns, as in Gymnasium."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class EnvHandle(Protocol):
    """A running environment; one call at a time. Calls raise what the environment raises.

    Raises:
        EnvTimeout: No answer in time; the environment is gone.
        EnvLost: The process of the environment was lost from outside.
        EnvError: The environment tried to end the process, such as by ``SystemExit``.
    """

    async def reset(self, task: Task) -> ResetResult:
        """Start the task."""

    async def step(self, action: str) -> StepResult:
        """Act."""

    async def fork(self) -> EnvHandle:
        """An independent environment in the same state."""

    async def close(self) -> None:
        """Free the environment; never raises, and has no effect on one that is gone."""


class Executor(Protocol):
    """Runs environments: in this process (``ThreadExecutor``) or in others (``ProcessPool``)."""

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """Make the environment of a task."""


@dataclass(frozen=True)
class ThreadExecutor:
    """Runs environments in threads of this process.

    A thread cannot be stopped, so an environment that hangs blocks its episode forever. A
    ``RuntimeWarning`` then names the task and the call.
    """

    warn_after: float = 60.0
    """Seconds without an answer after which a warning names the environment."""
    max_threads: int = 64
    """Calls at once; further ones wait."""

    async def open(self, make: MakeEnv, task: Task) -> EnvHandle:
        """Make the environment of a task."""
        threads = _threads(self.max_threads)
        env = await _call(threads, make, task, undo=_close)
        return _ThreadEnv(env, self.warn_after, threads)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Shared by all environments of the process; a thread starts when no other is idle."""
    return ThreadPoolExecutor(count, "env")


@dataclass(frozen=True)
class _ThreadEnv:
    env: Env
    warn_after: float
    threads: ThreadPoolExecutor

    async def reset(self, task: Task) -> ResetResult:
        with self._watched(f"reset to {task.id!r}"):
            return ResetResult(*await _call(self.threads, reset_env, self.env, task))

    async def step(self, action: str) -> StepResult:
        with self._watched(f"step {action[:60]!r}"):
            return StepResult(*await _call(self.threads, step_env, self.env, action))

    async def fork(self) -> EnvHandle:
        with self._watched("fork"):
            copied = await _call(self.threads, fork_env, self.env, undo=_close)
            return _ThreadEnv(copied, self.warn_after, self.threads)

    @contextmanager
    def _watched(self, call: str) -> Iterator[None]:
        timer = asyncio.get_running_loop().call_later(self.warn_after, self._warn, call)
        try:
            yield
        finally:
            timer.cancel()

    def _warn(self, call: str) -> None:
        bare = self.env.unwrapped
        named = f", task {bare.task_id!r}," if isinstance(bare, TextEnv) and bare.task_id else ""
        warnings.warn(
            f"{type(bare).__name__}{named} has not answered {call} for {self.warn_after:g} s. If "
            f"it hangs, the run hangs with it: an environment in this process cannot be stopped, "
            f"one in a worker process can (`--rollout.workers 1`)",
            RuntimeWarning,
            stacklevel=2,
        )

    async def close(self) -> None:
        try:
            await _call(self.threads, _close, self.env)
        except Exception as problem:
            warnings.warn(
                f"{type(self.env.unwrapped).__name__} was not closed: "
                f"{type(problem).__name__}: {problem}",
                RuntimeWarning,
                stacklevel=2,
            )


async def _call(
    threads: ThreadPoolExecutor,
    function: Callable[..., T],
    *args: Any,
    undo: Callable[[T], None] = lambda result: None,
) -> T:
    """Call in a thread. It cannot be stopped, so a cancelled caller waits until it returns.

    An environment is then in one call at a time, and a result without a caller is undone.
    """
    call = partial(_contained, function, *args)
    running = asyncio.get_running_loop().run_in_executor(threads, call)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if running.exception() is None:
            await asyncio.to_thread(undo, running.result())
        raise


def _contained(function: Callable[..., T], *args: Any) -> T:
    """Call foreign code; what is no ``Exception``, such as ``SystemExit``, becomes an ``EnvError``.

    It would end the event loop, and with it the run, without a message.
    """
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as problem:
        raise EnvError(f"the environment raised {type(problem).__name__}: {problem}") from problem


def _close(env: Env) -> None:
    env.close()


def reset_env(env: Env, task: Task) -> tuple[str, dict[str, Any]]:
    """Start a task; its seed seeds everything random in it."""
    return env.reset(seed=task.seed, options={"task": task.id})


def step_env(env: Env, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
    """Act; the reward as a plain float."""
    observation, reward, terminated, truncated, info = env.step(action)
    return observation, float(reward), terminated, truncated, info


def fork_env(env: Env) -> Env:
    """An independent copy of an environment in the same state, with its wrappers.

    Raises:
        ConfigError: The environment is not a ``TextEnv``, so it cannot be copied.
    """
    if isinstance(env, gymnasium.Wrapper):
        copied = copy.copy(env)
        copied.env = fork_env(env.env)
        return copied
    if not isinstance(env, TextEnv):
        raise ConfigError(f"{type(env).__name__} cannot be forked, expected an agentgym.TextEnv")
    return env.fork()
