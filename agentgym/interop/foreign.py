"""The bases of adapters; most have seeds as tasks, success from rewards, forks by replay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from agentgym.env.base import Opening, Outcome, Promises, TextEnv, unknown_split, unknown_task
from agentgym.errors import ConfigError, EnvError, NotReplayable

FIRST_SEED = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""First seed of each split, where tasks are seeds."""
_BELOW_FULL = 0.99
"""Largest score of an episode that is not won."""


class Reply(NamedTuple):
    """What one action led to in a foreign environment."""

    text: str
    reward: float = 0.0
    done: bool = False
    valid: bool = True


class Named:
    """What is named ``KIND:TARGET``; every class that a scheme of ``env.schemes`` names is one."""

    max_turns: int | None = 50
    kind = ""
    """Prefix of its names."""
    target: str
    """What stands behind the colon."""

    @classmethod
    def adapter(cls, target: str) -> type[Named]:
        """The class that plays what stands behind a name: this one, or a part of it."""
        return cls

    @classmethod
    def turn_limit(cls, target: str) -> int | None:
        """Turn limit of the environment behind a name, where the settings name none."""
        return cls.max_turns

    @property
    def name(self) -> str:
        """How users name it."""
        return f"{self.kind}:{self.target}"


class NamedEnv(Named, TextEnv):
    """An environment that is made from its target."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments: a fork is made with the same ones."""
        made = super().__new__(cls)
        made._made_with = args, kwargs
        return made

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]

    def __init__(self, target: str, **kwargs: Any) -> None:
        """See ``TextEnv`` for further arguments.

        Args:
            target: What stands behind the colon of its name.
            **kwargs: Those of ``TextEnv``.
        """
        super().__init__(**kwargs)
        self.target = target

    def made_again(self) -> Self:
        """A new one, made with the same arguments."""
        args, kwargs = self._made_with
        return type(self)(*args, **kwargs)


class ForeignEnv(NamedEnv):
    """An environment of another library.

    An adapter writes ``begin`` and ``respond``. Tasks are seeds, unless it writes ``tasks`` too.
    An episode counts as won when it has ended and its rewards sum to ``success``; its score is
    their share of that.
    """

    promises = Promises(fork="replay", panels=False, success=False, validity=False)

    def __init__(
        self, target: str, *, num_tasks: int = 1000, success: float = 1.0, **kwargs: Any
    ) -> None:
        """See ``TextEnv`` for further arguments.

        Args:
            target: What stands behind the colon of its name.
            num_tasks: Tasks of the training split, where tasks are seeds; the others have a tenth.
            success: Sum of rewards from which an episode counts as won.
            **kwargs: Those of ``TextEnv``.

        Raises:
            ConfigError: A value is out of range.
        """
        super().__init__(target, **kwargs)
        if num_tasks < 10 or num_tasks > FIRST_SEED["valid"]:
            raise ConfigError(f"num_tasks is {num_tasks}, expected 10 to {FIRST_SEED['valid']}")
        if not success > 0:
            raise ConfigError(f"success is {success}, expected a sum of rewards above 0")
        self.success = success
        self._num_tasks = num_tasks
        self._total = 0.0
        self._seed = 0
        self._played: list[tuple[str, str]] = []
        """Actions so far, and what they were answered with."""

    # ---- what an adapter writes ------------------------------------------------------------------

    @abstractmethod
    def begin(self, task: str, seed: int) -> Opening:
        """Start a task.

        Args:
            task: One of ``tasks``.
            seed: Of everything random in it; where tasks are seeds, the one that the task names.
        """

    @abstractmethod
    def respond(self, action: str) -> Reply:
        """Carry out one action."""

    # ---- the contract ----------------------------------------------------------------------------

    def tasks(self, split: str) -> Sequence[str]:
        """Seeds: ``seed-0``, ``seed-1``, and so on; each split has its own."""
        if split not in FIRST_SEED:
            raise unknown_split(self.name, split, tuple(FIRST_SEED))
        count = self._num_tasks if split == "train" else self._num_tasks // 10
        return [f"seed-{FIRST_SEED[split] + n}" for n in range(count)]

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin a task."""
        self._seed = self._seed_of(task, rng)
        self._total, self._played = 0.0, []
        opening = self.begin(task, self._seed)
        self._must_be_text(opening.observation, "reset")
        return opening

    def act(self, action: str) -> Outcome:
        """Carry out one action; success and score follow from the rewards."""
        reply = self.respond(action)
        self._must_be_text(reply.text, "a step")
        if isinstance(reply.reward, bool) or not isinstance(reply.reward, float | int | np.number):
            raise EnvError(f"{self.name} gave the reward {reply.reward!r:.80}, expected a number")
        if not np.isfinite(reply.reward):
            raise EnvError(f"{self.name} gave the reward {reply.reward}, expected a finite number")
        self._played.append((action, reply.text))
        self._total += float(reply.reward)
        won = bool(reply.done) and self._total >= self.success
        share = min(max(self._total / self.success, 0.0), _BELOW_FULL)
        score = 1.0 if won else share
        return Outcome(reply.text, float(reply.reward), score, won, bool(reply.done), reply.valid)

    def fork(self) -> Self:
        """A new environment that is brought to the same state by the same actions.

        Raises:
            ConfigError: The environment promises no seeds, so that it has no fork.
            NotReplayable: It answered the same actions differently.
        """
        if self.promises.fork == "no":
            raise ConfigError(
                f"{self.name} cannot be forked: its kind promises no seeds. Use an algorithm that "
                f"does not branch, such as grpo"
            )
        twin = self.made_again()
        twin.task_id, twin._opening, twin._last = self.task_id, self._opening, self._last
        if self.task_id:
            twin._replay(self)
        return twin

    def _replay(self, original: Self) -> None:
        self._seed, self._total, self._played = original._seed, 0.0, []
        opening = self.begin(original.task_id, original._seed)
        if opening.observation != original._opening.observation:
            raise NotReplayable(f"{self.name} started task {self.task_id!r} differently again")
        for number, (action, text) in enumerate(original._played, 1):
            if self.act(action).observation != text:
                raise NotReplayable(
                    f"{self.name} answered action {number} of task {self.task_id!r} differently "
                    f"when it was replayed for a fork"
                )

    def _seed_of(self, task: str, rng: np.random.Generator) -> int:
        """The seed that a task names, or one drawn from the generator where tasks are listed."""
        if self.promises.panels:
            return int(rng.integers(2**31))
        number = task.removeprefix("seed-")
        if not task.startswith("seed-") or not number.isascii() or not number.isdecimal():
            raise unknown_task(self.name, task, self.tasks(self.split))
        if not any(0 <= int(number) - first < self._num_tasks for first in FIRST_SEED.values()):
            raise unknown_task(self.name, task, self.tasks(self.split))
        return int(number)

    def _must_be_text(self, text: object, where: str) -> None:
        if not isinstance(text, str):
            raise EnvError(
                f"{self.name} answered {where} with {text!r:.80} of type {type(text).__name__}, "
                f"expected text"
            )
