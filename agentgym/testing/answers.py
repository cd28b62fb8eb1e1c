"""Checks of single answers: to malformed actions, as lasting values, and as pickles."""

from __future__ import annotations

import pickle
import time
from typing import Any

from agentgym.testing.harness import NONSENSE, Harness

_LONGEST_ANSWER = 20_000
"""Characters; a fifth of the longest nonsense, so that an echo shows."""
_PATIENCE = 10.0
"""Seconds for one nonsensical action; what takes longer grows faster than its length."""


def malformed_actions_are_harmless(harness: Harness) -> str:
    """A language model may write anything at any time."""
    env = harness.make()
    for task in harness.few(env, 1):
        harness.begin(env, task)
        for action in NONSENSE:
            started = time.monotonic()
            step = harness.act(env, action)
            spent, where = time.monotonic() - started, f"task {task!r}, action {action[:60]!r}"
            harness.require(
                not step.info["won"],
                f"{where} won: only what reaches the goal may count as success",
            )
            harness.require(
                len(step.observation) <= _LONGEST_ANSWER,
                f"{where}: {len(action)} characters were answered with {len(step.observation)}, "
                f"which fills the agent's context: cut what you quote",
            )
            harness.require(
                spent < _PATIENCE,
                f"{where}: {len(action)} characters took {spent:.0f} s: look for a regular "
                f"expression or a loop that is quadratic in the action",
            )
            if step.terminated:
                harness.begin(env, task)
    return f"{len(NONSENSE)} actions, the longest of {max(map(len, NONSENSE))} characters"


def answers_are_plain_values(harness: Harness) -> str:
    """Answers can be pickled, do not change later, and may be changed by their reader."""
    env = harness.make()
    walks = harness.recorded()[:2]
    for walk in walks:
        given = [env.reset(seed=walk.seed, options={"task": walk.task})]
        kept = [_pickled(harness, given[0])]
        for action in walk.actions:
            observation, _, _, _, info = env.step(action)
            given.append((observation, info))
            kept.append(_pickled(harness, given[-1]))
        env.reset(seed=walk.seed + 1)
        for number, (answer, bytes_) in enumerate(zip(given, kept, strict=True)):
            before = pickle.loads(bytes_)
            changed = [key for key in before[1] if before[1][key] != answer[1].get(key)]
            harness.require(
                answer == before,
                f"task {walk.task!r}: info of answer {number} changed after it was given "
                f"({', '.join(changed) or 'its keys'}): return a new dictionary, copy its lists",
            )
        for index, action in enumerate(["", *walk.actions]):
            if index:
                observation, _, _, _, info = env.step(action)
            else:
                observation, info = env.reset(seed=walk.seed, options={"task": walk.task})
            harness.require(
                (observation, info) == pickle.loads(kept[index]),
                f"task {walk.task!r}: a reader that emptied the lists in info changed answer "
                f"{index}: the environment hands out its own state; return copies",
            )
            _spoil(info)
    return f"{sum(len(walk.steps) for walk in walks)} answers"


def _pickled(harness: Harness, answer: tuple[str, dict[str, Any]]) -> bytes:
    try:
        data = pickle.dumps(answer)
        whole = bool(pickle.loads(data) == answer)
    except Exception as problem:
        raise AssertionError(
            f"{harness.id}: observation and info must survive pickling, which carries them between "
            f"processes; {type(problem).__name__}: {problem}"
        ) from problem
    harness.require(
        whole, "observation and info are not equal after pickling: put plain values into info"
    )
    return data


def _spoil(value: object) -> None:
    """Empty every list, set and dictionary inside."""
    if isinstance(value, dict):
        for inner in list(value.values()):
            _spoil(inner)
        value.clear()
    elif isinstance(value, list):
        for inner in value:
            _spoil(inner)
        value.clear()
    elif isinstance(value, set):
        value.clear()
