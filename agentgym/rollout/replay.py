"""Plays recorded actions again: those of a person, or of an episode that is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentgym.env.executor import Env, MakeEnv, reset_env, step_env
from agentgym.errors import ConfigError, MissingExtra, UnknownTask
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

REPLAY = "replay:"
"""Prefix of a model's name that stands for recorded actions, before the name of their file."""
NOTHING = Completion((), (), ())
"""The completion of an action that was not sampled."""


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
        return await asyncio.to_thread(self._play, task, sample, self.actions[task, sample])

    def _play(self, task: Task, sample: int, actions: Sequence[str]) -> Trajectory:
        turns: list[Turn] = []
        opening, info, stop, error = "", dict[str, Any](), Stop.MAX_TURNS, ""
        env: Env | None = None
        try:
            env = self.make_env(task)
            opening, info = reset_env(env, task)
            for action in list(filter(None, actions))[: self.max_turns]:
                observation, reward, done, cut, info = step_env(env, action)
                valid = bool(info["action_valid"])
                turns.append(Turn((), NOTHING, action, observation, reward, valid=valid))
                if done or cut:
                    stop = Stop.TERMINATED if done else stop
                    break
        except (ConfigError, MissingExtra, UnknownTask):
            raise
        except Exception as problem:  # The environment is foreign code.
            stop, error = Stop.ENV_ERROR, f"{type(problem).__name__}: {problem}"
        finally:
            if env is not None:
                env.close()
        return played(task, sample, opening, turns, stop, info, error)


def played(
    task: Task,
    sample: int,
    opening: str,
    turns: Sequence[Turn],
    stop: Stop,
    info: Mapping[str, Any],
    error: str,
) -> Trajectory:
    """An episode that no model played.

    Args:
        task: The task.
        sample: Number of the episode among those of its task.
        opening: First observation.
        turns: What was done.
        stop: How it ended.
        info: The environment's last.
        error: What went wrong with the environment; else empty.
    """
    return Trajectory(
        task=task,
        sample=sample,
        goal=str(info.get("goal", "")),
        opening=opening,
        turns=tuple(turns),
        stop=stop,
        score=float(info.get("score", 0.0)),
        won=bool(info.get("won", False)),
        task_type=str(info.get("task_type", "")),
        error=error,
    )
