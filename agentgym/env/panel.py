"""Frozen task panels: the same tasks, in the same order, with the same digest, everywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agentgym.env.base import TextEnv
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.types import Task


@dataclass(frozen=True, slots=True)
class Panel:
    """The tasks of one split of one world, in a fixed order."""

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
                f"got a panel size of {count}"
            )
        return Panel(self.env, self.split, self.tasks[:count])

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.tasks)


def panel(env: str, *, split: str = "test", **kwargs: Any) -> Panel:
    """The panel of a split of a world.

    Args:
        env: Registered environment id.
        split: ``train``, ``valid``, ``test`` or another split the world names.
        **kwargs: Passed to the world.

    Raises:
        ConfigError: The world has no such split.
    """
    bare = world(env, **kwargs)
    try:
        return panel_of(env, bare, split)
    finally:
        bare.close()


def panel_of(env: str, bare: TextEnv, split: str) -> Panel:
    """The panel of a world that is already made."""
    ids = bare.tasks(split)
    return Panel(env, split, tuple(Task(env, id_) for id_ in ids))
