"""An environment as an MCP server, for any client of the protocol."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentgym.env.base import TextEnv
from agentgym.env.executor import Env
from agentgym.env.registry import make, world
from agentgym.errors import AgentGymError, EnvError, MissingExtra

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

KEPT = 64
"""Running episodes; beyond that, the least recently used one is closed."""
_LISTED = 100
"""Task ids in one answer."""


@dataclass(frozen=True)
class Tasks:
    """Part of a list of tasks."""

    total: int
    tasks: list[str]


@dataclass(frozen=True)
class Turn:
    """An answer of the environment."""

    episode: str
    observation: str
    goal: str = ""
    """Sent once, at the start."""
    manual: str = ""
    """How to act; sent once, at the start."""
    reward: float = 0.0
    score: float = 0.0
    won: bool = False
    done: bool = False
    """The episode ended, or was truncated at the turn limit."""
    action_valid: bool = True
    actions: list[str] = field(default_factory=list)
    """Admissible actions, where the environment was made to list them."""


@dataclass
class _Episode:
    env: Env
    lock: threading.Lock
    over: bool = False


class Episodes:
    """The tools of the server. Episodes have names because the protocol has no sessions."""

    def __init__(self, env: str, kwargs: Mapping[str, Any]) -> None:
        """Make the environment once, to check that it can be made.

        Raises:
            ConfigError: There is no such environment, or it takes no such keyword.
            MissingExtra: The environment's own package is not installed.
        """
        self._env, self._kwargs = env, dict(kwargs)
        self._bare: TextEnv = world(env, **kwargs)
        self._open: OrderedDict[str, _Episode] = OrderedDict()
        self._lock = threading.Lock()

    def tasks(self, split: str = "train", start: int = 0) -> Tasks:
        """List the tasks of a split (train, valid or test): at most 100, from position `start`."""
        with _errors_to_client():
            found = self._bare.tasks(split)
        return Tasks(len(found), list(found[max(0, start) : max(0, start) + _LISTED]))

    def reset(self, task: str = "", seed: int = 0) -> Turn:
        """Start an episode; without a task, the seed draws one. Returns the goal and how to act."""
        with _errors_to_client():
            env = make(self._env, **self._kwargs)
            try:
                observation, info = env.reset(seed=seed, options={"task": task} if task else None)
            except BaseException:
                env.close()
                raise
        name = secrets.token_hex(8)
        with self._lock:
            self._open[name] = _Episode(env, threading.Lock())
            old = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - KEPT)]
        for episode in old:
            _close(episode)
        return _turn(name, observation, info, goal=str(info["goal"]), manual=str(info["manual"]))

    def step(self, episode: str, action: str) -> Turn:
        """Act in an episode."""
        with _errors_to_client():
            found = self._find(episode)
            with found.lock:
                if found.over:
                    raise EnvError(f"episode {episode!r} is over; reset() starts another")
                try:
                    observation, reward, terminated, truncated, info = found.env.step(action)
                except BaseException:
                    found.over = True
                    raise
                found.over = terminated or truncated
        return _turn(episode, observation, info, reward=float(reward), done=found.over)

    def close(self, episode: str) -> str:
        """Close an episode."""
        with _errors_to_client():
            found = self._find(episode)
            with self._lock:
                self._open.pop(episode, None)
            _close(found)
        return "closed"

    def _find(self, name: str) -> _Episode:
        with self._lock:
            if name not in self._open:
                raise EnvError(
                    f"there is no episode {name[:80]!r}, or it was closed for newer ones: "
                    f"reset() starts one"
                )
            self._open.move_to_end(name)
            return self._open[name]


def mcp_server(env: str, kwargs: Mapping[str, Any]) -> MCPServer:
    """A server with the tools ``tasks``, ``reset``, ``step`` and ``close``.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: The MCP library, or the environment's own package, is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError:
        raise MissingExtra('MCP needs a library: pip install "agentic-gym[mcp]"') from None
    episodes = Episodes(env, kwargs)
    server: MCPServer = MCPServer(
        env,
        instructions="Start an episode by reset, then act by step until it is done.",
        log_level="WARNING",
    )
    tools: tuple[Callable[..., Any], ...] = (
        episodes.tasks,
        episodes.reset,
        episodes.step,
        episodes.close,
    )
    for function in tools:
        server.add_tool(function)
    return server


@contextmanager
def _errors_to_client() -> Iterator[None]:
    """Send errors to the client, which the library would hide."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except AgentGymError as problem:
        raise ToolError(str(problem)) from problem
    except Exception as problem:
        raise ToolError(f"the environment failed: {type(problem).__name__}: {problem}") from problem


def _turn(episode: str, observation: str, info: Mapping[str, Any], **more: Any) -> Turn:
    return Turn(
        episode,
        observation,
        score=float(info["score"]),
        won=bool(info["won"]),
        action_valid=bool(info["action_valid"]),
        actions=list(info.get("admissible_commands", ())),
        **more,
    )


def _close(episode: _Episode) -> None:
    with episode.lock:
        episode.over = True
        episode.env.close()
