"""Makes environments for the checks and acts in them; every answer is checked as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, zip_longest
from typing import Any

import numpy as np

from agentgym.env.base import SPLITS, Promises, TextEnv
from agentgym.env.registry import spec, world
from agentgym.errors import ConfigError
from agentgym.settings import CheckSettings
from agentgym.testing.budget import Budget, Cut
from agentgym.testing.crash import NOT_THE_ENV, Crash
from agentgym.testing.steps import Exchange, Opened, Step, Walk, difference, faults

NONSENSE = (
    "",
    " \t",
    "\x00",
    "".join(map(chr, range(32))),
    "?" * 100_000,
    "ünïcödé ² 你好 🙂",
    "look\nlook\r\n\nlook",
    "<tool>{'a': [}",
    "-1",
    "%s {0} $(id) ; --",
)
"""What a language model may write instead of an action."""

_STEPS = 12
"""Longest random walk where not much depends on its length, or the environment is slow."""
_FEWEST = 3
"""Walks that are recorded even in a slow environment."""
_RECORDING = 0.5
"""Part of the time of a check that recording may take: a dozen checks play the walks again."""
_LONG = 50
"""Longest of the walks that are recorded, unless the fewest of them take too long."""


class Harness:
    """Makes environments and acts in them; checks every answer, whatever it was asked for."""

    def __init__(
        self,
        env_id: str,
        kwargs: dict[str, Any],
        effort: CheckSettings,
        promises: Promises | None = None,
        checks: int = 1,
    ) -> None:
        self.id = env_id
        self.kwargs = kwargs
        self.effort = effort
        self.promises = promises or Promises()
        self.made: list[TextEnv] = []
        self.crashes: dict[str, str] = {}
        """Place of a crash to the title of the check that reported it."""
        self.hangs = ""
        """Title of the check in which the environment hung; the others are not run."""
        self.budget = Budget(effort.budget, effort.seconds, checks)
        self.cuts: list[Cut] = []
        """What the running check has left out."""
        self.exchanged: list[tuple[Walk, list[Exchange]]] = []
        """Episodes as they came over the wire, where the environment is a server."""
        self._recorded: tuple[Walk, ...] = ()
        self._opened: dict[str, Opened] = {}
        self._solved: dict[str, tuple[Step, ...]] = {}
        self.begin_check()

    @property
    def horizon(self) -> int | None:
        """The registered limit on turns."""
        return spec(self.id).max_episode_steps

    def make(self, **more: Any) -> TextEnv:
        """A new environment; it also lists its admissible commands, unless told otherwise."""
        with self.must("take the options of TextEnv: accept **kwargs, hand them to super()"):
            env = world(self.id, **{**self.kwargs, "admissible": True, **more})
        self.made.append(env)
        return env

    def close(self) -> None:
        """Close every environment and fork, also those that are closed already."""
        with self.must("let close() be called at any time, and twice"):
            while self.made:
                self.made.pop().close()

    def abandon(self) -> None:
        """Close what can be closed, after a violation that is reported instead of what follows."""
        while self.made:
            with suppress(Exception, SystemExit):
                self.made.pop().close()

    @contextmanager
    def must(self, what: str) -> Iterator[None]:
        """What the environment raises inside is a violation of its contract."""
        try:
            yield
        except (AssertionError, *NOT_THE_ENV):
            raise
        except (Exception, SystemExit) as problem:
            raise Crash(
                f"{self.id} must {what}; it raised {type(problem).__name__}: {problem}", problem
            ) from problem

    def require(self, holds: bool, message: str) -> None:
        """Like ``assert``, which ``python -O`` removes, with the environment's id in front."""
        if not holds:
            raise AssertionError(f"{self.id}: {message}")

    def begin_check(self) -> None:
        """Another check begins, with its share of the time."""
        self.budget.begin()
        self.cuts = []

    def hurry(self) -> Callable[[], bool]:
        """Whether the time is over in which a check may repeat itself, counted from now."""
        return self.budget.hurry()

    def tried(self, count: int, wanted: int, what: str) -> None:
        """Note how much of what it wants to look at the running check has looked at."""
        if count < wanted:
            self.cuts.append(Cut(count, wanted, what))

    def splits(self, env: TextEnv) -> list[str]:
        """Splits to look at: all three, of foreign environments those that they have."""
        if self.promises == Promises():
            return list(SPLITS)
        held = []
        for split in SPLITS:
            with suppress(ConfigError):
                held += [split] if env.tasks(split) else []
        return held

    def few(self, env: TextEnv, count: int) -> list[str]:
        """Tasks spread over the splits, ``count`` from each; splits take turns.

        A smaller count gives the first of those of a larger one: to make a task may take long.
        """
        lists = (_spread(env.tasks(split))[:count] for split in self.splits(env))
        return [id_ for row in zip_longest(*lists) for id_ in row if id_ is not None]

    def begin(self, env: TextEnv, task: str, seed: int = 0) -> Step:
        """Start a task; ``info`` must name it, and it must not be won yet."""
        with self.must(f"reset to task {task!r}"):
            observation, info = env.reset(seed=seed, options={"task": task})
        step = Step(observation, 0.0, False, dict(info))
        self._check_step(step, f"reset to task {task!r}")
        named = step.info["task_id"]
        self.require(named == task, f"reset to task {task!r}, but info['task_id'] is {named!r}")
        self.require(not info["won"], f"task {task!r} is won before the first action")
        return step

    def act(self, env: TextEnv, action: str) -> Step:
        """One action."""
        with self.must(f"answer {action[:60]!r} with an observation and valid=False, never raise"):
            observation, reward, terminated, truncated, info = env.step(action)
        where = f"task {env.task_id!r}, action {action[:60]!r}"
        self.require(
            terminated in (True, False) and truncated is False,
            f"{where}: truncated={truncated} from the bare environment; limits on turns belong to "
            f"max_episode_steps at registration, `done` is for won, lost or dead",
        )
        step = Step(observation, reward, bool(terminated), dict(info))
        self._check_step(step, where)
        self.require(
            not info["won"] or step.terminated,
            f"{where}: won, but the episode continues: set `done`",
        )
        return step

    def _check_step(self, step: Step, where: str) -> None:
        for fault in faults(step):
            self.require(False, f"{where}: {fault}")

    def recorded(self) -> tuple[Walk, ...]:
        """Episodes of ``effort.steps`` steps in all, played once and kept."""
        if not self._recorded:
            env, late = self.make(), self.budget.hurry(_RECORDING)
            walks, steps = list[Walk](), 0
            tasks = self.few(env, 4)
            for number in count():
                task = tasks[number % len(tasks)]
                pace = self.budget.hurry(_RECORDING * _STEPS / (_FEWEST * _LONG))
                walks.append(self.walk(env, task, number, _LONG, pace))
                steps += len(walks[-1].actions)
                if steps >= self.effort.steps or (late() and len(walks) >= _FEWEST):
                    break
            self.tried(steps, self.effort.steps, "random steps")
            self._recorded = tuple(walks)
        return self._recorded

    def some(self, count: int) -> Iterator[Walk]:
        """The first recorded episodes: as many, or as the seconds allow; at least one."""
        late, walks = self.hurry(), self.recorded()[:count]
        for number, walk in enumerate(walks):
            if number and late():
                self.tried(number, len(walks), "episodes")
                return
            yield walk

    def opened(self, env: TextEnv, task: str) -> Opened:
        """How a task starts, its solution and its actions; asked for once in an audit."""
        if task not in self._opened:
            step = self.begin(env, task)
            with self.must("answer admissible() at any time"):
                admissible = tuple(env.admissible())
            self._opened[task] = Opened(step, self.oracle(env), admissible)
        return self._opened[task]

    def solved(self, env: TextEnv, task: str) -> tuple[Step, ...]:
        """The answers to the oracle's plan of a task, played once in an audit."""
        if task not in self._solved:
            plan = self.opened(env, task).plan or ()
            self.begin(env, task)
            self._solved[task] = tuple(self.follow(env, plan))
        return self._solved[task]

    def walk(
        self,
        env: TextEnv,
        task: str,
        seed: int,
        limit: int = _STEPS,
        slow: Callable[[], bool] | None = None,
    ) -> Walk:
        """Play a task at random, for no more steps than were asked for; see ``wander``."""
        start = self.begin(env, task, seed)
        actions, steps = self.wander(env, np.random.default_rng(seed), limit, slow)
        return Walk(task, seed, tuple(actions), (start, *steps))

    def wander(
        self,
        env: TextEnv,
        rng: np.random.Generator,
        limit: int = _STEPS,
        slow: Callable[[], bool] | None = None,
    ) -> tuple[list[str], list[Step]]:
        """Go on at random from here; returns the actions and their answers.

        Args:
            env: In some state.
            rng: Chooses the actions.
            limit: Steps, at most.
            slow: Asked after as many steps as a short walk has: whether to end there.
        """
        actions: list[str] = []
        steps: list[Step] = []
        limit = min(limit, self.effort.steps)
        while len(actions) < limit and not (steps and steps[-1].terminated):
            if slow is not None and len(actions) == _STEPS and slow():
                break
            action, admissible = self._choose(env, rng)
            actions.append(action)
            steps.append(self.act(env, action))
            self.require(
                steps[-1].info["action_valid"] or not (admissible and env.admissible_exact),
                f"task {env.task_id!r}: {action!r} is among admissible(), yet it was answered "
                f"as invalid",
            )
        return actions, steps

    def replay(self, env: TextEnv, walk: Walk, turns: int | None = None) -> list[Step]:
        """Play an episode again, or its first turns."""
        return [
            self.begin(env, walk.task, walk.seed),
            *self.follow(env, walk.actions[:turns]),
        ]

    def follow(self, env: TextEnv, actions: Sequence[str]) -> list[Step]:
        """Act until the actions or the episode end."""
        steps: list[Step] = []
        for action in actions:
            if steps and steps[-1].terminated:
                break
            steps.append(self.act(env, action))
        return steps

    def same(self, got: Sequence[Step], expected: Sequence[Step], message: str) -> None:
        """Two runs of answers must be equal; the error shows where they part."""
        for index, (one, other) in enumerate(zip(got, expected, strict=False)):
            self.require(one == other, f"{message}. Answer {index}: {difference(one, other)}")
        self.require(len(got) == len(expected), f"{message}. One of the episodes ended earlier")

    def oracle(self, env: TextEnv) -> tuple[str, ...] | None:
        """Actions that win from here, or None."""
        with self.must("answer oracle() at any time"):
            return env.oracle()

    def fork(self, env: TextEnv) -> TextEnv:
        """A copy that continues by itself."""
        with self.must("fork in any state; the default copies the environment deeply"):
            child = env.fork()
        self.require(child is not env, "fork() gave the environment itself, not a copy")
        self.made.append(child)
        return child

    def refuses(self, call: Callable[[], object], error: type[Exception], what: str) -> None:
        """A call with something unknown must raise a given error."""
        try:
            call()
        except error:
            return
        except Exception as problem:
            raise AssertionError(
                f"{self.id}: {what} must raise {error.__name__}, got "
                f"{type(problem).__name__}: {problem}"
            ) from problem
        raise AssertionError(f"{self.id}: {what} was accepted, it must raise {error.__name__}")

    def _choose(self, env: TextEnv, rng: np.random.Generator) -> tuple[str, bool]:
        """An action, and whether the environment called it admissible."""
        with self.must("answer admissible() at any time"):
            commands = env.admissible()
        plan = self.oracle(env)
        draw = rng.random()
        if draw < 0.1:
            return NONSENSE[int(rng.integers(4))], False
        if plan and (draw < 0.3 or not commands):
            return plan[0], False
        if commands:
            return commands[int(rng.integers(len(commands)))], True
        env.action_space.seed(int(rng.integers(2**31)))
        return env.action_space.sample(), False


def _spread(ids: Sequence[str]) -> list[str]:
    """All of them; any number of the first ones lies far apart in the list.

    Examples:
        >>> _spread("abcdefgh")[:5]
        ['a', 'e', 'c', 'g', 'b']
    """
    places = (int(part * len(ids)) for part in (0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8))
    return list(dict.fromkeys([*(ids[place] for place in places if ids), *ids]))
