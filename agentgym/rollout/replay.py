"""Plays recorded actions again: those of a person, or of an episode that is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentgym.env.executor import MakeEnv
from agentgym.errors import ConfigError
from agentgym.rollout.without_model import play_without_model
from agentgym.types import Task, Trajectory

REPLAY = "replay:"
"""Prefix of a model's name that stands for recorded actions, before the name of their file."""


@dataclass(frozen=True, kw_only=True)
class ReplayPlayer:
    """Plays episodes with known actions, each in a thread of this process."""

    actions: Mapping[tuple[Task, int], Sequence[str]]
    """Actions of every episode; an empty one reached no environment and is passed over."""
    make_env: MakeEnv
    max_turns: int

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode until its actions or its turns are used up.

        Raises:
            ConfigError: No actions are known for it.
        """
        if (task, sample) not in self.actions:
            raise ConfigError(f"no recorded actions of task {task.id!r}, episode {sample}")
        left = iter([action for action in self.actions[task, sample] if action])
        return await asyncio.to_thread(
            play_without_model,
            *(task, sample),
            make_env=self.make_env,
            max_turns=self.max_turns,
            choose=lambda env, observation, info: next(left, None),
        )
