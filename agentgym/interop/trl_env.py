"""Environment classes of TRL: ``trl:file.py:Class``.

Their public methods are tools. An action calls some of them; one that calls none is the answer,
and ends the episode with the reward of ``get_reward``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from agentgym.env import by_class
from agentgym.env.base import Opening, Outcome, Promises, unknown_split, unknown_task
from agentgym.errors import ConfigError
from agentgym.interop.foreign import FIRST_SEED, Named
from agentgym.interop.rows import read_rows, split_rows
from agentgym.tools.env import ToolEnv

_OWN = ("reset", "get_reward")
"""Methods that the trainer calls, and the model does not."""


class TRLWorld(Named, ToolEnv):
    """An environment class as ``GRPOTrainer(environment_factory=...)`` takes it.

    Tasks are the rows of a dataset, which ``reset`` is given, or seeds where ``reset`` takes one.
    """

    kind = "trl"
    promises = Promises(fork="no", seeds=False, panels=False, success=False)

    def __init__(
        self,
        target: str,
        *,
        data: str = "",
        num_tasks: int = 1000,
        success: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Make one instance; see ``TextEnv`` for further arguments.

        Args:
            target: ``file.py:Class`` or ``module:Class``.
            data: JSON Lines file of rows that ``reset`` is given; unset: tasks are seeds.
            num_tasks: Tasks of the training split, where tasks are seeds.
            success: Reward from which an episode counts as won.
            **kwargs: Those of ``TextEnv``.

        Raises:
            ConfigError: There is no such class, or it has no ``reset`` or ``get_reward``.
        """
        made = by_class.load_object(target)
        self._theirs = made() if callable(made) else made
        lacking = [name for name in _OWN if not callable(getattr(self._theirs, name, None))]
        if lacking:
            raise ConfigError(f"trl:{target} has no method {lacking[0]}(), which this needs")
        methods = inspect.getmembers(type(self._theirs), predicate=inspect.isfunction)
        tools = [
            getattr(self._theirs, name)
            for name, _ in methods
            if name not in _OWN and not name.startswith("_")
        ]
        super().__init__(tools=tools, **kwargs)
        self.target, self.success, self._num_tasks = target, success, num_tasks
        self._rows = read_rows(data) if data else []
        takes = inspect.signature(self._theirs.reset).parameters
        self._takes_seed = "seed" in takes
        open_ended = any(each.kind is each.VAR_KEYWORD for each in takes.values())
        self._takes = None if open_ended else set(takes)
        seeded = self._takes_seed or bool(self._rows)
        self.promises = Promises(fork="no", seeds=seeded, panels=bool(data), success=False)

    def tasks(self, split: str) -> Sequence[str]:
        """The rows of the dataset, or seeds."""
        if self._rows:
            return split_rows(self._rows, self.name, split)
        if split not in FIRST_SEED:
            raise unknown_split(self.name, split, tuple(FIRST_SEED))
        count = self._num_tasks if split == "train" else max(1, self._num_tasks // 10)
        return [f"seed-{FIRST_SEED[split] + n}" for n in range(count)]

    def open(self, task: str, rng: np.random.Generator) -> Opening:
        """Reset their environment."""
        known = [each for split in FIRST_SEED for each in self.tasks(split)]
        if task not in known:
            raise unknown_task(self.name, task, known)
        number = int(task.partition("-")[2])
        row = dict(self._rows[number]) if self._rows else {}
        if self._takes_seed:
            row.setdefault("seed", number if not self._rows else int(rng.integers(2**31)))
        given = {k: v for k, v in row.items() if self._takes is None or k in self._takes}
        observation = self._theirs.reset(**given)
        prompt = row.get("prompt", "")
        if isinstance(prompt, list):
            prompt = "\n\n".join(str(message.get("content", "")) for message in prompt)
        shown = "\n\n".join(filter(None, (str(prompt), observation or "")))
        return Opening(shown, "Call tools until the task is done, then answer in text.")

    def act_without_call(self, action: str) -> Outcome:
        """The model's answer: the episode ends, and is scored."""
        reward = float(self._theirs.get_reward())
        won = reward >= self.success
        score = 1.0 if won else min(max(reward / self.success, 0.0), 0.99)
        return Outcome("", reward, score, won, True, True)

    def fork(self) -> Self:
        """Not possible: nothing promises that the state can be copied.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"{self.name} cannot be forked: TRL's environments promise no copies. Use an algorithm "
            f"that does not branch, such as grpo"
        )
