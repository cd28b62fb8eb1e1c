"""What the viewer shows: the episodes of runs and evaluation files, as compact JSON objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import LeftOut, episode_files, valid_episodes
from agentgym.evaluation.records import EpisodeRecord, TurnRecord
from agentgym.types import Ending
from agentgym.viewer.values import attach_values

_DIGITS = 3
"""Decimals of entropies and log-probabilities; a colour cannot show more."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Episodes, and what was left out on the way to them."""

    episodes: list[dict[str, Any]]
    warnings: tuple[str, ...]


def load(paths: Sequence[Path]) -> Loaded:
    """The episodes of all files, in order; what cannot be read is left out with a warning.

    Raises:
        ConfigError: A path does not exist, or no file has a readable episode.
    """
    episodes: list[dict[str, Any]] = []
    warnings: list[str] = []
    files = [file for path in paths for file in episode_files(path)]
    for file in files:
        left_out = LeftOut()
        episodes += [_shown(record, _label(file)) for record in valid_episodes(file, left_out)]
        warnings += left_out.summary()
    warnings += filter(None, [attach_values(episodes, file, _label(file)) for file in files])
    if not episodes:
        raise ConfigError(
            warnings[0] if warnings else f"no episode in {', '.join(map(str, files))}"
        )
    return Loaded(episodes, tuple(warnings))


def _label(file: Path) -> str:
    """Label that distinguishes the files of several runs."""
    parts = file.resolve().parts
    folder = parts[-3] if file.parent.name == "eval" and len(parts) > 2 else parts[-2]
    return f"{folder}/{file.name.partition('.jsonl')[0]}"


def _shown(record: EpisodeRecord, label: str) -> dict[str, Any]:
    return {
        "file": label,
        "task": record.task,
        "type": record.task_type,
        "sample": record.sample,
        "seed": record.seed,
        "step": record.version,
        "end": Ending.of(record.stop, record.won).value,
        "score": _number(record.score),
        "reward": _number(record.reward),
        "shared": record.shared_turns,
        "parent": record.parent,
        "goal": record.goal,
        "opening": record.opening,
        "error": record.error,
        "seconds": _number(record.seconds),
        "turns": [_turn(turn) for turn in record.turns],
    }


def _turn(turn: TurnRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "action": turn.action,
        "observation": turn.observation,
        "text": turn.text if turn.text is not None else turn.action,
        "reward": _number(turn.reward),
        "ok": turn.parsed and turn.valid,
        "parsed": turn.parsed,
        "trained": turn.trained,
        "forced": turn.forced if turn.forced != (0, 0) else None,
        "seconds": [_number(turn.sampling_seconds), _number(turn.env_seconds)],
        "thought": turn.thought_tokens,
        "version": turn.version,
        "tokens": turn.completion_tokens,
    }
    if turn.ends:
        shown |= {
            "ends": turn.ends,
            "entropies": [_number(value) for value in turn.entropies],
            "logprobs": [_number(value) for value in turn.logprobs],
        }
        if credited := turn.token_advantages:
            shown["advantages"] = [_number(value) for value in credited]
        if turn.versions:
            shown["versions"] = turn.versions
    return shown


def _number(value: float) -> float | None:
    return round(value, _DIGITS) if math.isfinite(value) else None


def index_of(episode: dict[str, Any], number: int) -> dict[str, Any]:
    """The row of an episode in the list: everything but its conversation."""
    row = {name: value for name, value in episode.items() if name not in _LONG}
    return row | {"id": number, "length": len(episode["turns"])}


_LONG = ("turns", "opening", "goal", "error", "values", "policy")
