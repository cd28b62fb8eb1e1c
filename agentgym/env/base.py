"""The contract of an environment: a Gymnasium environment of text actions and observations."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from agentgym.errors import ConfigError, EnvError, UnknownTask, did_you_mean

R = TypeVar("R")

Progress = Callable[[int, int], None]
"""Called with (done, total) while a longer job runs."""

SPLITS = ("train", "valid", "test")
"""Every environment partitions its tasks into these; it may add more."""


class AnyText(spaces.Space[str]):
    """Every string; unlike ``gymnasium.spaces.Text``, any alphabet and any length."""

    def __init__(self, examples: Sequence[str] = ("look", "help", "wait")) -> None:
        super().__init__(shape=(), dtype=None)
        self.examples = tuple(examples)
        """What ``sample`` draws from; membership does not depend on it."""

    def contains(self, x: Any) -> bool:
        """Any ``str``."""
        return isinstance(x, str)

    def sample(self, mask: None = None, probability: None = None) -> str:
        """One of the examples."""
        return self.examples[int(self.np_random.integers(len(self.examples)))]

    def __repr__(self) -> str:
        """Short, because Gymnasium prints spaces in its warnings."""
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        """All texts are one space."""
        return isinstance(other, AnyText)

    def __hash__(self) -> int:
        """Consistent with equality."""
        return hash(AnyText)


class Opening(NamedTuple):
    """What a task starts with; returned by ``TextEnv.start``."""

    observation: str
    goal: str
    """What the agent should achieve, in words."""
    task_type: str = ""
    """Family of the task; results are reported per family."""


class Outcome(NamedTuple):
    """What one action led to; returned by ``TextEnv.act``."""

    observation: str
    reward: float = 0.0
    score: float = 0.0
    """Progress so far in [0, 1]; 1 exactly when won."""
    won: bool = False
    done: bool = False
    """The episode has ended: won, lost or dead. Limits on turns are added by wrappers."""
    valid: bool = True
    """The environment understood the action in this state."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What an environment promises beyond text in and text out.

    Everything, unless it stems from another library whose interface lacks something.
    """

    fork: Literal["copy", "replay", "no"] = "copy"
    """``fork`` copies the state, or reaches it again by replaying the actions, or cannot."""
    seeds: bool = True
    """Task, seed and actions reproduce an episode."""
    panels: bool = True
    """Its tasks are listed; else tasks are seeds."""
    success: bool = True
    """It states score and success; else they are computed from rewards."""
    validity: bool = True
    """It states whether an action was understood; else every action counts as valid."""

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is missing, in words."""
        words = {
            "forks": self.fork != "no",
            "forks by copy": self.fork != "replay",
            "seeds": self.seeds,
            "listed tasks": self.panels,
            "success": self.success,
            "validity of actions": self.validity,
        }
        return tuple(name for name, held in words.items() if not held)


class TextEnv(gymnasium.Env[str, str]):
    """Base of every environment: write ``tasks``, ``start``, ``act`` and ``manual``.

    All randomness must come from the generator given to ``start``, so that task, seed and actions
    reproduce an episode. An action that makes no sense is answered with an observation and
    ``valid=False``, never with an exception.

    ``reset(seed=..., options={"task": task_id})`` picks the task; without ``options`` the seed
    draws one from the split the environment was made with. ``info`` holds, at reset and at every
    step, ``task_id``, ``task_type``, ``goal``, ``score`` in [0, 1], ``won``, ``action_valid``,
    and ``admissible_commands`` when the environment was made with ``admissible=True``. At reset
    it also holds ``manual``.
    """

    observation_space: spaces.Space[str] = AnyText()
    action_space: spaces.Space[str] = AnyText()
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's name and type
    stochastic: bool = False
    """The seed changes what happens within a task; the checker verifies it."""
    admissible_exact: bool = True
    """Every action that ``admissible`` lists is accepted; the checker verifies it."""
    promises: Promises = Promises()
    """What it promises; environments of other libraries promise less."""
    calls_only: bool = False
    """Every action is a call of one of the tools in ``info["tools"]``."""
    max_turns: int | None = None
    """Turn limit where the class is used without registration, as in ``file.py:ClassName``."""

    def __init__(
        self, *, split: str = "train", admissible: bool = False, render_mode: str | None = None
    ) -> None:
        self.split = split
        self.with_admissible = admissible
        self.render_mode = render_mode
        self.task_id = ""
        self._opening = Opening("", "")
        self._last = Outcome("")

    # ---- what an author writes -------------------------------------------------------------

    @abstractmethod
    def tasks(self, split: str) -> Sequence[str]:
        """Ids of the tasks of a split, in a fixed order, equal on every machine."""

    @abstractmethod
    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Begin a task."""

    @abstractmethod
    def act(self, action: str) -> Outcome:
        """Carry out one action."""

    def manual(self) -> str:
        """What an agent must know to act: goes into the system prompt, the same for every task.

        States what the environment is, every form of command with an example, what a turn
        answers, and what ends the episode. Does not depend on the task or on the state.
        """
        return ""

    def admissible(self) -> tuple[str, ...]:
        """Actions that are accepted in this state, sorted; empty when not known."""
        return ()

    def oracle(self) -> tuple[str, ...] | None:
        """Actions that win from this state, or None when none are known."""
        return None

    def missing(self) -> str:
        """How to install what this environment needs and this machine lacks; else empty."""
        return ""

    def prepare(self, tasks: Sequence[str], progress: Progress | None = None) -> None:
        """Build ahead what tasks need, such as compiled games; cheap when done.

        Args:
            tasks: That are going to be played.
            progress: Called with (done, total).
        """

    def fork(self) -> Self:
        """An independent environment in the same state.

        The default is a deep copy, which is exact for an environment written in Python.
        """
        return copy.deepcopy(self)

    def shallow_copy(self) -> Self:
        """A shallow copy with its own random generator: the first step of a custom ``fork``."""
        other = copy.copy(self)
        rng = self._np_random
        other._np_random = None if rng is None else _copied(rng)
        return other

    # ---- what Gymnasium sees ---------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start a task; see the class for ``options``.

        Raises:
            UnknownTask: ``options["task"]`` is not a task of this environment.
            ConfigError: The split has no tasks.
        """
        super().reset(seed=seed)
        task = (options or {}).get("task")
        if task is None:
            known = self.tasks(self.split)
            if not known:
                raise empty_split(type(self).__name__, self.split, self)
            task = known[int(self.np_random.integers(len(known)))]
        self.task_id = str(task)
        with _no_exit():
            self._opening = _expected(Opening, self.start(self.task_id, self.np_random), self.start)
        self._last = Outcome(self._opening.observation)
        return self._opening.observation, {**self._info(), "manual": self.manual()}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Act; ``truncated`` is always False, wrappers add limits."""
        with _no_exit():
            self._last = _expected(Outcome, self.act(action), self.act)
        last = self._last
        return last.observation, float(last.reward), last.done, False, self._info()

    def render(self) -> str | None:
        """The last observation."""
        return self._last.observation if self.render_mode == "ansi" else None

    def _info(self) -> dict[str, Any]:
        info = {
            "task_id": self.task_id,
            "task_type": self._opening.task_type,
            "goal": self._opening.goal,
            "score": self._last.score,
            "won": self._last.won,
            "action_valid": self._last.valid,
        }
        if self.with_admissible:
            info["admissible_commands"] = self.admissible()
        return info


_SEED = np.random.SeedSequence(0)


def _copied(rng: np.random.Generator) -> np.random.Generator:
    """A generator in the same state; ten times faster than a deep copy."""
    bits = type(rng.bit_generator)(_SEED)
    bits.state = rng.bit_generator.state
    return np.random.Generator(bits)


def _expected(kind: type[R], value: R, method: Callable[..., R]) -> R:
    """The value, which must be of a kind.

    Raises:
        EnvError: It is not; names the method with file and line.
    """
    if isinstance(value, kind):
        return value
    code = inspect.unwrap(method).__code__
    place = f"{Path(code.co_filename).name}, line {code.co_firstlineno}"
    hint = ": is a `return` missing?" if value is None else ""
    raise EnvError(
        f"{place}: {method.__name__}() returned {value!r:.80}, expected an agentgym."
        f"{kind.__name__}{hint}"
    )


@contextmanager
def _no_exit() -> Iterator[None]:
    """Code of an environment that calls ``sys.exit`` fails like any other, and ends no run."""
    try:
        yield
    except SystemExit as problem:
        raise EnvError(f"the environment raised SystemExit: {problem}") from problem


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse an argument that is not one of the known values.

    Raises:
        ConfigError: Names the argument, its value and what was expected.
    """
    if value not in known:
        raise ConfigError(
            f"{name}: got {value!r}, expected one of {', '.join(known)}."
            f"{did_you_mean(value, known)}"
        )


def unknown_task(env: str, task: str, known: Sequence[str]) -> UnknownTask:
    """The error for a task id that an environment does not have."""
    example = f" A valid id looks like {known[0]!r}." if known else ""
    return UnknownTask(f"{env} has no task {task!r}.{did_you_mean(task, known) or example}")


def empty_split(env: str, split: str, bare: TextEnv) -> ConfigError:
    """The error for a split without tasks; shows what the other splits have."""
    counts = ", ".join(f"{each} {len(bare.tasks(each))}" for each in SPLITS)
    return ConfigError(
        f"{env} has no tasks in split {split!r} (tasks: {counts}); for a file of questions, the "
        f"environment argument data_split decides which split its rows belong to"
    )


def unknown_split(env: str, split: str, known: tuple[str, ...]) -> ConfigError:
    """The error for a split that an environment does not have."""
    return ConfigError(
        f"{env} has no split {split!r}.{did_you_mean(split, known)} Splits: {', '.join(known)}"
    )
