"""Environments of SkyRL-Gym: ``skyrl-gym:ID`` with a file of rows, such as ``skyrl-gym:gsm8k``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentgym.env.base import Opening, Promises, unknown_task
from agentgym.errors import ConfigError, MissingExtra
from agentgym.interop.foreign import ForeignEnv, Reply
from agentgym.interop.rows import read_rows, split_rows


class SkyRLGymWorld(ForeignEnv):
    """A ``BaseTextEnv``; each row of a file is a task, with its prompt and further fields."""

    kind = "skyrl-gym"
    promises = Promises(fork="replay", success=False, validity=False)

    def __init__(
        self, target: str, *, data: str = "", env_config: Any = None, **kwargs: Any
    ) -> None:
        """Look the environment up; see ``ForeignEnv`` for further arguments.

        Args:
            target: Id of a registered environment.
            data: JSON Lines file of rows: ``prompt``, and what the environment calls extras.
            env_config: Configuration of the environment, as a dictionary.
            **kwargs: Those of ``ForeignEnv``.

        Raises:
            ConfigError: There is no such environment or no file.
            MissingExtra: SkyRL-Gym is not installed.
        """
        super().__init__(target, **kwargs)
        try:
            import skyrl_gym
        except ImportError:
            raise MissingExtra("pip install skyrl-gym") from None
        if target not in skyrl_gym.registry:
            known = ", ".join(sorted(skyrl_gym.registry))
            raise ConfigError(f"{self.name}: SkyRL-Gym has no such environment. It has: {known}")
        if not data:
            raise ConfigError(
                f"{self.name} takes its tasks from a file of rows: `--data FILE.jsonl`"
            )
        self._rows = read_rows(data)
        self._make = skyrl_gym.make
        self._config = dict(env_config or {})
        self._env: Any = None

    def tasks(self, split: str) -> Sequence[str]:
        """The rows of the file."""
        return split_rows(self._rows, self.name, split)

    def begin(self, task: str, seed: int) -> Opening:
        """Start a row."""
        known = [f"row-{number}" for number in range(len(self._rows))]
        if task not in known:
            raise unknown_task(self.name, task, known)
        row = {**self._rows[known.index(task)]}
        prompt = row.pop("prompt", [])
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        self.close()
        try:
            self._env = self._make(self.target, env_config=_Settings(self._config), extras=row)
        except (AssertionError, LookupError, TypeError) as problem:
            raise ConfigError(f"{self.name} refuses {task}: {problem}") from problem
        messages, _ = self._env.init(prompt)
        return Opening(_joined(messages), "Solve the task.", self.target)

    def respond(self, action: str) -> Reply:
        """Take one turn."""
        out = self._env.step(action)
        return Reply(_joined(out["observations"]), float(out["reward"]), bool(out["done"]))

    def manual(self) -> str:
        """The prompt of a row holds the instructions."""
        return f"An environment of SkyRL-Gym, {self.target}: follow the instructions of the task."

    def close(self) -> None:
        """Close the running environment."""
        if self._env is not None:
            self._env.close()
            self._env = None


class _Settings(dict[str, Any]):
    """A dictionary whose keys are attributes too, as SkyRL's configurations are."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _joined(messages: Any) -> str:
    if isinstance(messages, str):
        return messages
    return "\n\n".join(str(message["content"]) for message in messages or ())
