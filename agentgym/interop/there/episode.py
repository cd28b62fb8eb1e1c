"""One episode of an environment of ours, as other libraries' classes drive it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentgym.env.registry import make, world
from agentgym.errors import EnvError


class EnvEpisode:
    """Starts tasks, acts, and sums what it earned; with the registered turn limit."""

    def __init__(self, env: str, kwargs: Mapping[str, Any]) -> None:
        """Make the environment; raises what ``agentgym.make`` does."""
        self.env = make(env, **kwargs)
        self.reward = 0.0
        """Sum of the rewards of the episode."""
        self.info: dict[str, Any] = {}
        self.done = True

    def start(self, task: str | None = None, seed: int = 0) -> tuple[str, str]:
        """Start a task; the manual, and the goal with the first observation."""
        options = {} if task is None else {"task": task}
        observation, self.info = self.env.reset(seed=seed, options=options)
        self.reward, self.done = 0.0, False
        goal = str(self.info["goal"])
        shown = observation if goal in observation else f"{goal}\n\n{observation}"
        return str(self.info["manual"]), shown

    def act(self, action: str) -> tuple[str, float]:
        """The answer to an action, and its reward.

        Raises:
            EnvError: The episode is over.
        """
        if self.done:
            raise EnvError("the episode is over: start another")
        observation, reward, terminated, truncated, self.info = self.env.step(action)
        self.reward += float(reward)
        self.done = bool(terminated or truncated)
        return observation, float(reward)

    @property
    def won(self) -> bool:
        """Whether the task is done."""
        return bool(self.info.get("won", False))

    @property
    def score(self) -> float:
        """Score in [0, 1]."""
        return float(self.info.get("score", 0.0))

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def task_ids(env: str, split: str, count: int | None, kwargs: Mapping[str, Any]) -> list[str]:
    """The first tasks of a split; all unless ``count`` is given."""
    bare = world(env, **kwargs)
    try:
        return list(bare.tasks(split)[:count])
    finally:
        bare.close()
