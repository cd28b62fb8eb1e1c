"""Answers of an environment, and what is wrong with one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_LARGEST_REWARD = 10.0
"""Largest absolute reward of one step: what agent libraries pay for a win at most."""
_INFO: dict[str, type | tuple[type, ...]] = {
    "task_id": str,
    "task_type": str,
    "goal": str,
    "score": (float, int),
    "won": bool,
    "action_valid": bool,
}
_PLAIN = (str, int, float, bool, type(None), np.number, np.bool_)


class Step(NamedTuple):
    """An answer of the environment; ``info`` is a copy."""

    observation: str
    reward: float
    terminated: bool
    info: dict[str, Any]


class Opened(NamedTuple):
    """How a task starts."""

    step: Step
    plan: tuple[str, ...] | None
    """Of the oracle."""
    admissible: tuple[str, ...]


class Exchange(NamedTuple):
    """A message to a server, and its answer."""

    operation: str
    sent: dict[str, Any]
    answer: dict[str, Any]
    seconds: float


class Walk(NamedTuple):
    """An episode played at random: what replays it, and the answers."""

    task: str
    seed: int
    actions: tuple[str, ...]
    steps: tuple[Step, ...]
    """One more than actions; the first is the opening."""


def faults(step: Step) -> Iterator[str]:
    """What is wrong with an answer, the first fault first; later ones assume that it is mended."""
    if not isinstance(step.observation, str):
        yield f"the observation is not a str: {step.observation!r}"
    if not _encodes(step.observation):
        yield "the observation has no UTF-8: decode with errors='replace'"
    if not (isinstance(step.reward, float | int) and math.isfinite(step.reward)):
        yield f"the reward must be a finite number, got {step.reward!r}"
    if abs(step.reward) > _LARGEST_REWARD:
        yield (
            f"the reward is {step.reward:g}, expected at most {_LARGEST_REWARD:g}: "
            f"divide by the largest return, so that a win is worth about 1"
        )
    yield from _info_faults(step.info)


def _info_faults(info: dict[str, Any]) -> Iterator[str]:
    for name, kind in _INFO.items():
        if name not in info:
            yield f"info lacks {name!r}: extend super()._info(), keep its keys"
        if not isinstance(info[name], kind) or (kind is not bool and isinstance(info[name], bool)):
            yield (
                f"info[{name!r}] is {info[name]!r:.80} of type "
                f"{type(info[name]).__name__}, expected {_named(kind)}"
            )
    for name, value in info.items():
        if not (isinstance(name, str) and _is_plain(value)):
            yield (
                f"info[{name!r}] is {value!r:.80} of type {type(value).__name__}, which "
                f"other processes and records cannot take: put plain values into info (str, bool, "
                f"int, float, None, and lists, tuples, sets and dictionaries of them)"
            )
    score, won = info["score"], info["won"]
    if not 0 <= score <= 1:
        yield f"score {score} is outside [0, 1]: rescale it"
    if won != (score == 1):
        yield f"score {score} with won={won}: the score is 1 exactly when the task is won"
    commands = info.get("admissible_commands", ())
    if not (isinstance(commands, tuple | list) and all(isinstance(c, str) for c in commands)):
        yield f"admissible commands must be texts in a fixed order, got {commands!r:.200}"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(each.__name__ for each in kinds)


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def difference(one: Step, other: Step) -> str:
    """Where two answers differ."""
    for name, first, second in zip(Step._fields, one, other, strict=True):
        if name != "info" and first != second:
            return f"{name} {str(first)[:200]!r} against {str(second)[:200]!r}"
    keys = [key for key in one.info if one.info[key] != other.info.get(key)]
    return f"info differs in {', '.join(keys) or 'its keys'}"
