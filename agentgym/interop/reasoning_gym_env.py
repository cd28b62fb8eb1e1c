"""Questions of reasoning-gym: ``reasoning-gym:NAME``, such as ``basic_arithmetic``."""

from __future__ import annotations

from typing import Any

from agentgym.env.base import Opening, Promises
from agentgym.errors import ConfigError, MissingExtra
from agentgym.interop.foreign import ForeignEnv, Reply


class ReasoningGymWorld(ForeignEnv):
    """One question per task; the seed of a task makes it, its own scorer judges the answer."""

    kind = "reasoning-gym"
    promises = Promises(fork="replay", panels=False, validity=False)
    max_turns = 1

    def __init__(self, target: str, *, config: Any = None, **kwargs: Any) -> None:
        """Look the dataset up; see ``ForeignEnv`` for further arguments.

        Args:
            target: Name of a dataset of reasoning-gym.
            config: Keyword arguments of the dataset, as a dictionary.
            **kwargs: Those of ``ForeignEnv``.

        Raises:
            ConfigError: There is no such dataset, or it takes no such keyword.
            MissingExtra: reasoning-gym is not installed.
        """
        super().__init__(target, **kwargs)
        try:
            import reasoning_gym
        except ImportError:
            raise MissingExtra("pip install reasoning-gym") from None
        self._create = reasoning_gym.create_dataset
        self._config = dict(config or {})
        self._dataset(0)

    def begin(self, task: str, seed: int) -> Opening:
        """Ask the question of the seed."""
        self._data = self._dataset(seed)
        self._entry = self._data[0]
        return Opening(str(self._entry["question"]), "Answer the question.", self.target)

    def respond(self, action: str) -> Reply:
        """Score the answer; the episode ends."""
        score = float(self._data.score_answer(action.strip(), self._entry))
        return Reply("Right." if score >= self.success else "Wrong.", score, True)

    def oracle(self) -> tuple[str, ...] | None:
        """The answer, where it is one text."""
        answer = self._entry.get("answer")
        return None if self._last.done or not isinstance(answer, str) else (answer,)

    def manual(self) -> str:
        """How to answer."""
        return (
            "Your action is the answer to the question and nothing else, such as 42. It ends the "
            "episode."
        )

    def _dataset(self, seed: int) -> Any:
        try:
            return self._create(self.target, seed=seed, size=1, **self._config)
        except (ValueError, TypeError, AssertionError) as problem:
            raise ConfigError(f"{self.name}: {problem}") from problem
