"""The contract of a world as one function that anyone can run: ``check_world(env_id)``."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from agentgym.env import SPLITS, TextEnv
from agentgym.errors import AgentGymError, ConfigError, MissingExtra, UnknownTask
from agentgym.panel import panel_of
from agentgym.registry import make, world

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
"""What a language model may say instead of an action."""

_STEPS = 12
"""Longest random walk."""
_INFO = {
    "task_id": str,
    "task_type": str,
    "goal": str,
    "score": (float, int),
    "won": bool,
    "action_valid": bool,
}


def check_world(env_id: str, **kwargs: Any) -> None:
    """Check everything that training and evaluation rely on in a world.

    Args:
        env_id: Registered environment id.
        **kwargs: Passed to the world; small settings make the check quick.

    Raises:
        AssertionError: The world breaks its contract; the message names the likely cause.
        ConfigError: There is no such world, or it takes no such keyword.
        MissingExtra: The world's own package is not installed.

    Examples:
        >>> check_world("agentgym/Hotter-v0", high=20)
    """
    world(env_id, **kwargs).close()
    lab = _Lab(env_id, kwargs)
    for check in (
        _check_splits,
        _check_task_ids,
        _check_repeatable,
        _check_nonsense,
        _check_fork,
        _check_oracle,
        _check_limit,
        _check_global_generators,
        _check_gymnasium,
    ):
        check(lab)


class _Step(NamedTuple):
    """What a world answered; ``info`` is a copy."""

    observation: str
    reward: float
    terminated: bool
    info: dict[str, Any]


class _Lab:
    """Makes worlds and acts in them; every answer is checked, whatever it was asked for."""

    def __init__(self, env_id: str, kwargs: dict[str, Any]) -> None:
        self.id = env_id
        self.kwargs = kwargs

    def world(self) -> TextEnv:
        with self.must("take `admissible=True`: accept **kwargs, hand them to super().__init__"):
            return world(self.id, **{**self.kwargs, "admissible": True})

    @contextmanager
    def must(self, what: str) -> Iterator[None]:
        """Whatever the world raises inside is a violation of its contract."""
        try:
            yield
        except (AssertionError, MissingExtra):
            raise
        except Exception as problem:
            raise AssertionError(
                f"{self.id} must {what}; it raised {type(problem).__name__}: {problem}"
            ) from problem

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise AssertionError(f"{self.id}: {message}")

    def few(self, env: TextEnv, count: int) -> list[str]:
        """Tasks spread evenly over the splits, about ``count`` from each."""
        ids = (env.tasks(split) for split in SPLITS)
        return [id_ for split in ids for id_ in split[:: max(1, len(split) // count)][:count]]

    def begin(self, env: TextEnv, task: str, seed: int = 0) -> _Step:
        with self.must(f"reset to task {task!r}"):
            observation, info = env.reset(seed=seed, options={"task": task})
        step = _Step(observation, 0.0, False, dict(info))
        self._check_answer(step, f"reset to task {task!r}")
        named = step.info["task_id"]
        self.require(named == task, f"asked for task {task!r}, info['task_id'] is {named!r}")
        self.require(not info["won"], f"task {task!r} is won before the first action")
        return step

    def act(self, env: TextEnv, action: str) -> _Step:
        with self.must(f"answer {action[:60]!r} with an observation and valid=False, never raise"):
            observation, reward, terminated, truncated, info = env.step(action)
        where = f"task {env.task_id!r}, action {action[:60]!r}"
        self.require(
            terminated in (True, False) and truncated is False,
            f"{where}: truncated={truncated} from the bare world; limits on turns belong to "
            f"max_episode_steps at registration, `done` is for won, lost or dead",
        )
        step = _Step(observation, reward, bool(terminated), dict(info))
        self._check_answer(step, where)
        self.require(
            not info["won"] or step.terminated, f"{where}: won, but the episode goes on: set `done`"
        )
        return step

    def _check_answer(self, step: _Step, where: str) -> None:
        info = step.info
        self.require(
            isinstance(step.observation, str), f"{where}: the observation is not a str: {step[0]!r}"
        )
        self.require(
            isinstance(step.reward, float | int) and math.isfinite(step.reward),
            f"{where}: the reward must be a finite number, got {step.reward!r}",
        )
        for name, kind in _INFO.items():
            self.require(
                name in info, f"{where}: info lacks {name!r}: extend super()._info(), keep its keys"
            )
            self.require(
                isinstance(info[name], kind), f"{where}: info[{name!r}] is {info[name]!r}"
            )
        score, won = info["score"], info["won"]
        self.require(0 <= score <= 1, f"{where}: score {score} is outside [0, 1]: rescale it")
        self.require(
            won == (score == 1),
            f"{where}: score {score} with won={won}: the score is 1 exactly when the task is won",
        )
        commands = info.get("admissible_commands", ())
        self.require(
            list(commands) == sorted(commands), f"{where}: admissible commands must be sorted"
        )

    def walk(
        self, env: TextEnv, task: str, rng: np.random.Generator
    ) -> tuple[list[str], list[_Step]]:
        """Play a task at random; returns the actions and one answer more than actions."""
        steps, actions = [self.begin(env, task)], list[str]()
        while len(actions) < _STEPS and not steps[-1].terminated:
            action, known = self._choose(env, rng)
            actions.append(action)
            steps.append(self.act(env, action))
            self.require(
                not known or steps[-1].info["action_valid"],
                f"task {task!r}: {action!r} is among admissible(), yet it was answered as invalid",
            )
        return actions, steps

    def replay(self, env: TextEnv, task: str, actions: Sequence[str]) -> list[_Step]:
        steps = [self.begin(env, task)]
        return steps + self.follow(env, actions)

    def follow(self, env: TextEnv, actions: Sequence[str]) -> list[_Step]:
        """Act until the actions or the episode end."""
        steps: list[_Step] = []
        for action in actions:
            if steps and steps[-1].terminated:
                break
            steps.append(self.act(env, action))
        return steps

    def same(self, got: Sequence[_Step], expected: Sequence[_Step], message: str) -> None:
        for index, (one, other) in enumerate(zip(got, expected, strict=False)):
            self.require(one == other, f"{message}. Answer {index}: {_difference(one, other)}")
        self.require(len(got) == len(expected), f"{message}. One of the episodes ended earlier")

    def _choose(self, env: TextEnv, rng: np.random.Generator) -> tuple[str, bool]:
        """An action, and whether the world itself called it admissible."""
        with self.must("answer admissible() and oracle() at any time"):
            commands, plan = env.admissible(), env.oracle()
        draw = rng.random()
        if draw < 0.1:
            return NONSENSE[int(rng.integers(4))], False
        if plan and (draw < 0.3 or not commands):
            return plan[0], False
        if commands:
            return commands[int(rng.integers(len(commands)))], True
        env.action_space.seed(int(rng.integers(2**31)))
        return env.action_space.sample(), False


def _difference(one: _Step, other: _Step) -> str:
    for name, first, second in zip(_Step._fields, one, other, strict=True):
        if name != "info" and first != second:
            return f"{name} {str(first)[:200]!r} against {str(second)[:200]!r}"
    keys = [key for key in one.info if one.info[key] != other.info.get(key)]
    return f"info differs in {', '.join(keys) or 'its keys'}"


def _check_splits(lab: _Lab) -> None:
    first, second = lab.world(), lab.world()
    seen: dict[str, str] = {}
    for split in SPLITS:
        with lab.must(f"list the tasks of split {split!r}"):
            ids = list(first.tasks(split))
        lab.require(bool(ids), f"split {split!r} is empty")
        lab.require(
            all(isinstance(id_, str) and id_ for id_ in ids), f"a task id of {split!r} is no text"
        )
        lab.require(len(ids) == len(set(ids)), f"split {split!r} lists a task twice")
        for id_ in ids:
            lab.require(id_ not in seen, f"task {id_!r} is in {seen.get(id_)!r} and in {split!r}")
            seen[id_] = split
        digest = panel_of(lab.id, first, split).digest
        lab.require(
            digest == panel_of(lab.id, second, split).digest,
            f"two worlds list {split!r} differently: fix the order, do not list a set or a folder",
        )
    _refuses(lab, lambda: first.tasks("no-such-split"), ConfigError, "an unknown split")


