"""Our environments in TRL: ``GRPOTrainer(environment_factory=environment_factory("hotter"), ...)``.

TRL calls ``reset`` with the fields of a row, offers the public methods of the instance to the
model as tools, and asks ``get_reward`` for the reward of the episode.
"""

from __future__ import annotations

from typing import Any

from agentgym.env.registry import make
from agentgym.interop.there.episode import EnvEpisode, task_ids


class AgentGymEnvironment:
    """What TRL plays; ``environment_factory`` makes subclasses that know their environment."""

    _env = ""
    _kwargs: dict[str, Any] = {}  # noqa: RUF012 - set once, in a subclass

    def __init__(self) -> None:
        """Make the environment."""
        self._episode = EnvEpisode(self._env, self._kwargs)

    def reset(self, task: str | None = None, seed: int = 0, **row: Any) -> str:
        """Start a task; the text is appended to the prompt.

        Args:
            task: Id of the task; unset: the seed draws one.
            seed: Of everything random in it.
            **row: Further fields of the dataset, which the environment does not need.
        """
        return "\n\n".join(self._episode.start(task, seed))

    def act(self, action: str) -> str:
        """Act in the environment.

        Args:
            action: The action, in the form that the instructions describe.

        Returns:
            What happened.
        """
        if self._episode.done:
            return "The episode is over."
        return self._episode.act(action)[0]

    def get_reward(self) -> float:
        """The rewards of the episode so far, summed."""
        return self._episode.reward


def environment_factory(env: str, **env_args: Any) -> type[AgentGymEnvironment]:
    """What ``GRPOTrainer`` takes as ``environment_factory``.

    Args:
        env: Any name of an environment.
        **env_args: Its keyword arguments.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.

    Examples:
        >>> played = environment_factory("hotter")()
        >>> played.reset(task="hotter-12")[-37:]
        'I hide a number from 1 to 100. Guess.'
    """
    make(env, **env_args).close()
    return type(
        "AgentGymEnvironment", (AgentGymEnvironment,), {"_env": env, "_kwargs": dict(env_args)}
    )


def dataset(env: str, split: str = "train", count: int | None = None, **env_args: Any) -> Any:
    """A ``datasets.Dataset`` with a row per task, for ``train_dataset``."""
    from datasets import Dataset

    prompt = [{"role": "user", "content": ""}]
    rows = [{"prompt": prompt, "task": id_} for id_ in task_ids(env, split, count, env_args)]
    return Dataset.from_list(rows)
