"""What all environments have in common that an OpenEnv server plays: its address, and sessions."""

from __future__ import annotations

import time
from abc import abstractmethod
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from agentgym.errors import ConfigError, EnvError
from agentgym.interop.foreign import NamedEnv
from agentgym.interop.openenv.audit import listening_process
from agentgym.interop.openenv.connection import Connection, get_json
from agentgym.interop.web import checked_url

_FRESH = 5
"""Seconds for which what a server states about itself is kept."""


class OpenEnvWorld(NamedEnv):
    """An environment on an OpenEnv server: of ours, or another's."""

    kind = "openenv"

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 60.0,
        replica: str = "",
        **kwargs: Any,
    ) -> None:
        """Connect to a server when it is first asked.

        Args:
            target: Address of the server.
            timeout: Seconds in which each answer must come.
            replica: Address of another server of the same environment, for the checker.
            **kwargs: Those of ``NamedEnv``.

        Raises:
            ConfigError: A value is out of range.
        """
        super().__init__(target, **kwargs)
        if not timeout > 0:
            raise ConfigError(f"timeout is {timeout}, expected seconds above 0")
        self.url = checked_url(target, "openenv")
        self.timeout = timeout
        self.replica = replica
        self._manual = ""
        self._connection = Connection(self.url, timeout)

    def session(self) -> Connection:
        """Another session of the server, for messages as they are."""
        return Connection(self.url, self.timeout)

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    @abstractmethod
    def reset_data(self, task: str, seed: int) -> dict[str, Any]:
        """What ``reset`` sends for a task."""

    @abstractmethod
    def step_data(self, action: str) -> dict[str, Any] | None:
        """What ``step`` sends for an action; None where the action cannot be written."""

    def readings(self, *, memory: bool = False) -> dict[str, Any]:
        """Of the server's process, for the checker: empty where it cannot be looked at.

        Args:
            memory: Also how much Python holds, where the server answers that: it watches it, which
                makes it slower, until it is asked without.
        """
        parts = urlsplit(self.url)
        if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            return {}
        process = listening_process(parts.port or 80)
        return {} if process is None else {"process": process}

    def get(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The answer of an HTTP route; None where the server has no such route."""
        return get_json(self.url, path, timeout=self.timeout, body=body)

    def tasks_route(self) -> str:
        """Of its tasks; empty where it lists none."""
        names = self.get("/list_environments")
        return f"/{names[0]}" if isinstance(names, list) and names else ""

    def specs(self, split: str) -> list[Any]:
        """Specifications of the tasks of a split, by the server's name.

        Raises:
            EnvError: It answered something else.
        """
        route = self.tasks_route()
        found = self.get(f"{route}/tasks", {"split": split})
        listed = found.get("tasks") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            raise EnvError(
                f"{self.url}{route}/tasks answered {found!r:.80}, expected a list of tasks"
            )
        return listed


def id_of(spec: Any, split: str, index: int) -> Any:
    """The id in a task's specification, else its place."""
    if isinstance(spec, dict):
        for name in ("id", "task_id", "name"):
            if name in spec:
                return spec[name]
    return spec if isinstance(spec, str) else f"{split}-{index}"


def facts(url: str, timeout: float) -> dict[str, Any] | None:
    """What a server of ours states about itself; None for another's. Kept for some seconds."""
    return _facts(url, timeout, int(time.monotonic() / _FRESH))


@lru_cache(maxsize=256)
def _facts(url: str, timeout: float, tick: int) -> dict[str, Any] | None:
    reported = get_json(url, "/agentgym", timeout=timeout)
    return reported if isinstance(reported, dict) and "max_turns" in reported else None
