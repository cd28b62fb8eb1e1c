"""Where the groups of a training step come from: played here, or elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agentgym.rollout.collect import Collect
from agentgym.rollout.player import Player
from agentgym.types import Task, Trajectory


class Groups(Protocol):
    """Plays groups of episodes, many at once."""

    async def collect(self, task: Task, stream: str) -> list[Trajectory]:
        """The group of a task.

        Args:
            task: What is played.
            stream: Name of the run and the training step, from which all seeds are derived.
        """

    def metrics(self) -> Mapping[str, float]:
        """Further metrics of a training step."""


@dataclass(frozen=True)
class LocalGroups:
    """Groups that a player of this process plays."""

    play: Collect
    player: Player

    async def collect(self, task: Task, stream: str) -> list[Trajectory]:
        """The group of a task."""
        return await self.play(task, self.player.with_stream(stream))

    def metrics(self) -> Mapping[str, float]:
        """None."""
        return {}
