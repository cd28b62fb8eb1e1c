"""Policies without a language model: the oracle, random actions, a Python function."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from agentgym.env.base import TextEnv
from agentgym.env.by_class import load_object, names_class
from agentgym.env.executor import Env, MakeEnv, reset_env, step_env
from agentgym.errors import ConfigError, MissingExtra, UnknownTask
from agentgym.rollout.env_calls import calls_of
from agentgym.rollout.replay import NOTHING, REPLAY, played
from agentgym.types import Stop, Task, Trajectory, Turn
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
        function = load_policy(self.name)
        rng = np.random.default_rng(derive(self.stream, task.env, task.id, task.seed, sample))
        turns: list[Turn] = []
        opening, info, stop, error = "", dict[str, Any](), Stop.MAX_TURNS, ""
        shown: Mapping[str, Any] = info
        env: Env | None = None
        try:
            env = self.make_env(task)
            opening, info = reset_env(env, task)
            observation, shown = opening, info
            while stop is Stop.MAX_TURNS and len(turns) < self.max_turns:
                chosen = time.perf_counter()
                action = self._act(env, function, observation, info, rng)
                asked = time.perf_counter()
                observation, reward, done, cut, info = step_env(env, action)
                turn = Turn(
                    *((), NOTHING, action, observation, reward),
                    valid=bool(info["action_valid"]),
                    calls=calls_of(info),
                    sampling_seconds=asked - chosen,
                    env_seconds=time.perf_counter() - asked,
                )
                turns.append(turn)
                if cut:
                    break
                stop = Stop.TERMINATED if done else stop
        except (ConfigError, MissingExtra, UnknownTask):
            raise
        except Exception as problem:  # The environment is foreign code.
            stop, error = Stop.ENV_ERROR, f"{type(problem).__name__}: {problem}"
        finally:
            if env is not None:
                env.close()
        episode = played(task, sample, opening, turns, stop, info, error)
        manual, tools = str(shown.get("manual", "")), tuple(shown.get("tools", ()))
        return replace(episode, manual=manual, tools=tools)

    def _act(
        self,
        env: Env,
        function: ActionFunction | None,
        observation: str,
        info: Mapping[str, Any],
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
        known = bare.admissible()
        if not known:
            raise ConfigError(f"{type(bare).__name__} lists no admissible actions to draw from")
        return known[int(rng.integers(len(known)))]

    def _call(self, function: ActionFunction, observation: str, info: Mapping[str, Any]) -> str:
        try:
            action = function(observation, info)
        except Exception as problem:
            raise ConfigError(
                f"{self.name} raised {type(problem).__name__}: {problem}"
            ) from problem
        if not isinstance(action, str):
            raise ConfigError(f"{self.name} returned {action!r}, expected an action as text")
        return action
