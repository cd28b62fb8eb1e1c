"""What the viewer shows: the episodes of runs and evaluation files, as compact JSON objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord, TurnRecord, iterate_episodes
from agentgym.probe.files import SUFFIX
from agentgym.types import Ending
from agentgym.viewer.values import attach_values

_DIGITS = 3
"""Decimals of entropies and log-probabilities; a colour cannot show more."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Episodes, and what was left out on the way to them."""

    episodes: list[dict[str, Any]]
    warnings: tuple[str, ...]


def files_of(path: Path) -> list[Path]:
    """The files of episodes behind a path: a file, or those of a run folder.

    Raises:
        ConfigError: There is no such file, or no episodes in the folder.
    """
    if path.is_file():
        return [path]
    found = [path / "episodes.jsonl", *sorted((path / "eval").glob("*.jsonl"))]
    found = [file for file in found if file.is_file()] or sorted(path.glob("*.jsonl"))
    found = [file for file in found if file.name != "metrics.jsonl"]
    found = [file for file in found if not file.name.endswith(SUFFIX)]
    if not found:
        raise ConfigError(f"{path} has no episodes: expected a run folder or a .jsonl file")
    return found


def load(paths: Sequence[Path]) -> Loaded:
    """The episodes of all files, in order; what cannot be read is left out with a warning.

    Raises:
        ConfigError: A path does not exist, or no file has a readable episode.
    """
    episodes: list[dict[str, Any]] = []
    warnings = []
    files = [file for path in paths for file in files_of(path)]
    for file in files:
        try:
            for record in iterate_episodes(file):
                episodes.append(_shown(record, _label(file)))
        except ConfigError as problem:
            warnings.append(f"{file} is left out from there on: {problem}")
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
    return f"{folder}/{file.stem}"


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
