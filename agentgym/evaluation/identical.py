"""Whether an episode that was played again is the recorded one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from agentgym.evaluation.records import EpisodeRecord, TurnRecord
from agentgym.types import Stop

NOT_REPEATED = frozenset(
    {"turns", "seconds", "failed_attempts", "sampling_seconds", "env_seconds", "rescoring"}
)
"""Fields that another play may change, and ``turns``, which are compared one by one."""
OF_THE_ENVIRONMENT = ("goal", "opening", "task_type", "won", "score")
"""Fields of an episode that its actions determine."""
ANSWERS = ("action", "observation", "reward", "valid")
"""The same of a turn."""


def differences(stored: EpisodeRecord, again: EpisodeRecord) -> tuple[str, ...]:
    """Every field in which an episode differs from its record, timings apart.

    Both are compared as they are written, floats to 7 digits.
    """
    played, stored = EpisodeRecord.from_json(again.to_json()), _unscored(stored)
    names = [each.name for each in fields(EpisodeRecord) if each.name not in NOT_REPEATED]
    return (*_fields(stored, played, names), *_turns(stored.turns, played.turns))


def environment_differences(stored: EpisodeRecord, again: EpisodeRecord) -> tuple[str, ...]:
    """The same of what the environment answered to the recorded actions."""
    played, stored = EpisodeRecord.from_json(again.to_json()), _unscored(stored)
    sent = [turn for turn in stored.turns if turn.action]
    found = [*_fields(stored, played, OF_THE_ENVIRONMENT)]
    if (stored.stop is Stop.TERMINATED) != (played.stop is Stop.TERMINATED):
        found.append("stop")
    if len(sent) != len(played.turns):
        return (*found, f"{len(played.turns)} turns instead of {len(sent)}")
    for number, (old, new) in enumerate(zip(sent, played.turns, strict=True), start=1):
        found += [f"turn {number} {name}" for name in _fields(old, new, ANSWERS)]
    return tuple(found)


def _unscored(record: EpisodeRecord) -> EpisodeRecord:
    """With the environment's own score, where another scorer replaced it."""
    if (given := record.rescoring) is None:
        return record
    return replace(record, score=given.world_score, won=given.world_won)


def _turns(stored: tuple[TurnRecord, ...], played: tuple[TurnRecord, ...]) -> Iterator[str]:
    if len(stored) != len(played):
        yield f"{len(played)} turns instead of {len(stored)}"
    names = [each.name for each in fields(TurnRecord) if each.name not in NOT_REPEATED]
    for number, (old, new) in enumerate(zip(stored, played, strict=False), start=1):
        for name in _fields(old, new, names):
            yield f"turn {number} {name}"


def _fields(one: Any, other: Any, names: list[str] | tuple[str, ...]) -> list[str]:
    return [name for name in names if not _same(getattr(one, name), getattr(other, name))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
