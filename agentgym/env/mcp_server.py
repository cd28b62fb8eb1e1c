"""A world as an MCP server: any client of the protocol can play it."""

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
"""Episodes under way; the one that was used longest ago is given up for another."""
_LISTED = 100
"""Task ids in one answer."""


@dataclass(frozen=True)
class Tasks:
    """Part of a list of tasks."""

    total: int
    tasks: list[str]


@dataclass(frozen=True)
class Seen:
    """What a world answered."""

    episode: str
    observation: str
    goal: str = ""
    """Told once, at the start."""
    reward: float = 0.0
    score: float = 0.0
    won: bool = False
    done: bool = False
    """It is over: by the world, or by the limit on turns."""
    action_valid: bool = True
    actions: list[str] = field(default_factory=list)
    """What means something now, where the world was made to list it."""


@dataclass
class _Episode:
    env: Env
    lock: threading.Lock
    over: bool = False


class Episodes:
    """The tools of the server. Episodes have names, since the protocol has no sessions."""

    def __init__(self, env: str, kwargs: Mapping[str, Any]) -> None:
        """Make the world once, to see that it can be.

        Raises:
            ConfigError: There is no such world, or it takes no such keyword.
            MissingExtra: The world's own package is not installed.
        """
        self._env, self._kwargs = env, dict(kwargs)
        self._bare: TextEnv = world(env, **kwargs)
        self._open: OrderedDict[str, _Episode] = OrderedDict()
        self._lock = threading.Lock()

    def tasks(self, split: str = "train", start: int = 0) -> Tasks:
        """List the tasks of a split (train, valid or test), at most 100 from a place on."""
        with _told():
            found = self._bare.tasks(split)
        return Tasks(len(found), list(found[max(0, start) : max(0, start) + _LISTED]))

    def reset(self, task: str = "", seed: int = 0) -> Seen:
        """Start an episode; without a task, the seed draws one. Tells the goal."""
        with _told():
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
        return _seen(name, observation, info, goal=str(info["goal"]))

    def step(self, episode: str, action: str) -> Seen:
        """Act in an episode."""
        with _told():
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
        return _seen(episode, observation, info, reward=float(reward), done=found.over)

    def close(self, episode: str) -> str:
        """Give up an episode."""
        with _told():
            found = self._find(episode)
            with self._lock:
                self._open.pop(episode, None)
            _close(found)
        return "closed"

    def _find(self, name: str) -> _Episode:
        with self._lock:
            if name not in self._open:
                raise EnvError(
                    f"there is no episode {name[:80]!r}, or it was given up for newer ones: "
                    f"reset() starts one"
                )
            self._open.move_to_end(name)
            return self._open[name]


def mcp_server(env: str, kwargs: Mapping[str, Any]) -> MCPServer:
    """A server with the tools ``tasks``, ``reset``, ``step`` and ``close``.

    Raises:
        ConfigError: There is no such world, or it takes no such keyword.
        MissingExtra: The MCP library, or the world's own package, is not installed.
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
def _told() -> Iterator[None]:
    """What goes wrong is told to the client; the library would keep it to itself."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except AgentGymError as problem:
        raise ToolError(str(problem)) from problem
    except Exception as problem:
        raise ToolError(f"the world broke: {type(problem).__name__}: {problem}") from problem


def _seen(episode: str, observation: str, info: Mapping[str, Any], **more: Any) -> Seen:
    return Seen(
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
