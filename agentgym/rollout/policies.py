"""Policies without a language model: the oracle, random actions, a Python function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.env.by_class import load_object, names_class
from agentgym.env.executor import Env, MakeEnv
from agentgym.errors import ConfigError
from agentgym.rollout.env_calls import one_line
from agentgym.rollout.replay import REPLAY
from agentgym.rollout.without_model import play_without_model
from agentgym.tools.env import ToolEnv
from agentgym.tools.random_calls import random_call
from agentgym.types import Task, Trajectory
from agentgym.utils.seeds import derive

ActionFunction: TypeAlias = Callable[[str, Mapping[str, Any]], str]
"""From the last observation and the environment's ``info`` to an action."""
BUILT_IN = ("oracle", "random")


def names_policy(name: str | Path | None) -> bool:
    """Whether a model's name stands for a policy without a language model.

    Examples:
        >>> names_policy("oracle"), names_policy("mine.py:act"), names_policy("org/model")
        (True, True, False)
    """
    return isinstance(name, str) and (
        name in BUILT_IN or name.startswith(REPLAY) or names_class(name)
    )


def load_policy(name: str) -> ActionFunction | None:
    """The function of ``file.py:function`` or ``module:function``; None for other policies.

    Raises:
        ConfigError: There is no such function, or no such file of recorded actions.
    """
    if name in BUILT_IN:
        return None
    if name.startswith(REPLAY):
        if not Path(name.removeprefix(REPLAY)).is_file():
            raise ConfigError(f"no file of episodes at {name.removeprefix(REPLAY)}")
        return None
    found = load_object(name)
    if not callable(found):
        raise ConfigError(f"{name} is a {type(found).__name__}, expected a function")
    function: ActionFunction = found
    return function


def random_action(env: TextEnv, observation: str, goal: str, rng: np.random.Generator) -> str:
    """One of the admissible actions, or a call of one of the tools; drawn evenly.

    Raises:
        ConfigError: The environment lists no actions and offers no tools.
    """
    if known := env.admissible():
        return known[int(rng.integers(len(known)))]
    if isinstance(env, ToolEnv) and env.tools:
        return random_call(env, observation, goal, rng)
    raise ConfigError(
        f"{type(env).__name__} lists no admissible actions and offers no tools to draw from"
    )


@dataclass(frozen=True, kw_only=True)
class PolicyPlayer:
    """Plays episodes with a policy of ``names_policy``, each in a thread of this process."""

    name: str
    make_env: MakeEnv
    max_turns: int
    stream: str = "0"
    """Names the run; part of every seed."""

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play one episode.

        Raises:
            ConfigError: The policy fails, or the environment has no oracle or lists no actions.
        """
        return await asyncio.to_thread(self._play, task, sample)

    def _play(self, task: Task, sample: int) -> Trajectory:
        seed = derive(self.stream, task.env, task.id, task.seed, sample)
        return play_without_model(
            *(task, sample),
            make_env=self.make_env,
            max_turns=self.max_turns,
            choose=partial(
                self._act,
                function=load_policy(self.name),
                rng=np.random.default_rng(seed),
            ),
        )

    def _act(
        self,
        env: Env,
        observation: str,
        info: Mapping[str, Any],
        *,
        function: ActionFunction | None,
        rng: np.random.Generator,
    ) -> str:
        if function is not None:
            return self._call(function, observation, info)
        bare = env.unwrapped
        assert isinstance(bare, TextEnv)
        if self.name == "oracle":
            moves = bare.oracle()
            if not moves:
                raise ConfigError(f"{type(bare).__name__} has no oracle in task {bare.task_id!r}")
            return moves[0]
        return random_action(bare, observation, str(info.get("goal", "")), rng)

    def _call(self, function: ActionFunction, observation: str, info: Mapping[str, Any]) -> str:
        try:
            action = function(observation, info)
        except Exception as problem:
            raise ConfigError(f"{self.name} raised {one_line(problem)}") from problem
        if not isinstance(action, str):
            raise ConfigError(f"{self.name} returned {action!r}, expected an action as text")
        return action
