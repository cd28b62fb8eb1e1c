"""Episodes in which no model chooses the actions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from agentgym.env.executor import Env, MakeEnv, reset_env, step_env
from agentgym.errors import ConfigError, MissingExtra, UnknownTask
from agentgym.rollout.env_calls import calls_of, one_line
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

NOTHING = Completion((), (), ())
"""The completion of an action that was not sampled."""

Choose: TypeAlias = Callable[[Env, str, Mapping[str, Any]], str | None]
"""From the environment, its last observation and its last ``info`` to an action; None ends the
episode."""


def play_without_model(
    task: Task, sample: int, *, make_env: MakeEnv, max_turns: int, choose: Choose
) -> Trajectory:
    """Play one episode in this thread.

    Args:
        task: The task.
        sample: Number of the episode among those of its task.
        make_env: Makes the environment, which is closed afterwards.
        max_turns: Turns after which the episode is cut.
        choose: What acts.

    Raises:
        ConfigError: ``choose`` or the environment refused what was asked for. What else they
            raise is the episode's ``error``.
    """
    turns: list[Turn] = []
    opening, first, info = "", dict[str, Any](), dict[str, Any]()
    stop, error = Stop.MAX_TURNS, ""
    env: Env | None = None
    try:
        env = make_env(task)
        opening, info = reset_env(env, task)
        observation, first, over = opening, info, False
        while not over and len(turns) < max_turns:
            start = time.perf_counter()
            action = choose(env, observation, info)
            if action is None:
                break
            chosen = time.perf_counter()
            observation, reward, done, cut, info = step_env(env, action)
            turn = Turn(
                *((), NOTHING, action, observation, reward),
                valid=bool(info["action_valid"]),
                calls=calls_of(info),
                sampling_seconds=chosen - start,
                env_seconds=time.perf_counter() - chosen,
            )
            turns.append(turn)
            over = done or cut
            stop = Stop.TERMINATED if done else stop
    except (ConfigError, MissingExtra, UnknownTask):
        raise
    except Exception as problem:  # The environment is foreign code.
        stop, error = Stop.ENV_ERROR, one_line(problem)
    finally:
        if env is not None:
            env.close()
    return Trajectory(
        task=task,
        sample=sample,
        goal=str(info.get("goal", "")),
        opening=opening,
        turns=tuple(turns),
        stop=stop,
        score=float(info.get("score", 0.0)),
        won=bool(info.get("won", False)),
        task_type=str(info.get("task_type", "")),
        error=error,
        manual=str(first.get("manual", "")),
        tools=tuple(first.get("tools", ())),
    )
