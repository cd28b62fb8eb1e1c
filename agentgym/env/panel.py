"""Frozen task panels: the same tasks, in the same order, with the same digest, everywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agentgym.env.base import TextEnv, empty_split
from agentgym.env.registry import full_id, label, world
from agentgym.errors import ConfigError
from agentgym.types import Task


@dataclass(frozen=True, slots=True)
class Panel:
    """The tasks of one split of one environment, in a fixed order."""

    env: str
    split: str
    tasks: tuple[Task, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of environment id, split and the ordered tasks; 64 hexadecimal digits."""
        content = [self.env, self.split, [[task.id, task.seed] for task in self.tasks]]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def head(self, count: int) -> Panel:
        """The first ``count`` tasks, a smaller panel with its own digest."""
        if not 0 < count <= len(self.tasks):
            raise ConfigError(
                f"{self.env} has {len(self.tasks)} tasks in split {self.split!r}, "
                f"got a panel size of {count}; set `--panel.tasks` to at most {len(self.tasks)}"
            )
        return Panel(self.env, self.split, self.tasks[:count])

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.tasks)


def panel(env: str, *, split: str = "test", **kwargs: Any) -> Panel:
    """The panel of a split of an environment.

    Args:
        env: Id, short name, or class, as in ``agentgym.env.registry.full_id``.
        split: ``train``, ``valid``, ``test`` or another split of the environment.
        **kwargs: Passed to the environment.

    Raises:
        ConfigError: There is no such environment, or it has no such split.
    """
    bare = world(env, **kwargs)
    try:
        return panel_of(env, bare, split)
    finally:
        bare.close()


def panel_of(env: str, bare: TextEnv, split: str) -> Panel:
    """The panel of an environment that is already made."""
    name = label(full_id(env))
    tasks = tuple(Task(name, id_) for id_ in bare.tasks(split))
    if not tasks:
        raise empty_split(name, split, bare)
    return Panel(name, split, tasks)
