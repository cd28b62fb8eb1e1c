"""Calls of an environment, which may fail: the failure ends an episode and not the run."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from agentgym.errors import ConfigError, EnvLost, EnvTimeout, MissingExtra, UnknownTask
from agentgym.types import Stop, ToolCall

T = TypeVar("T")


class EnvFailed(Exception):
    """The environment raised; the message is one line, whatever its own was."""

    def __init__(self, stop: Stop, problem: Exception) -> None:
        super().__init__(one_line(problem))
        self.stop = stop


def one_line(problem: Exception) -> str:
    """Type and message of an error of third-party code."""
    return " ".join(f"{type(problem).__name__}: {problem}".split())


async def env_call(result: Awaitable[T]) -> T:
    """Await a call of the environment; what it raises ends the episode and not the run.

    The one place that catches every exception: an environment is third-party code.
    """
    try:
        return await result
    except (UnknownTask, MissingExtra, ConfigError):
        raise
    except EnvTimeout as problem:
        raise EnvFailed(Stop.TOOL_TIMEOUT, problem) from problem
    except EnvLost as problem:
        raise EnvFailed(Stop.ABORTED, problem) from problem
    except Exception as problem:
        raise EnvFailed(Stop.ENV_ERROR, problem) from problem


def calls_of(info: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls of the last action, from the ``info`` of an environment with tools."""
    return tuple(ToolCall(each["name"], each["arguments"]) for each in info.get("last_calls", ()))
