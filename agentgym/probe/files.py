"""Files of turn values: a header, then one line per episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.probe.values import Value, decisive
from agentgym.types import Task
from agentgym.utils.jsonl import dumps, read_objects, write_atomic

SCHEMA = 1
"""Version of a line; raised when a field changes its meaning."""
SUFFIX = ".values.jsonl"
"""Ending of the files; ``X.values.jsonl`` belongs to the episodes in ``X.jsonl``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuedEpisode:
    """Values of the states of one episode."""

    task: Task
    sample: int
    version: int
    """Policy version of the episode; with task and sample it names one of a training run."""
    won: bool
    actions: tuple[str, ...]
    """What the agent did in each turn."""
    values: tuple[Value, ...]
    """Before each turn, and after the last one: one more than turns."""
    continuations: tuple[int, ...]
    """Episodes that were played to their end, from the state before each turn; episodes that share
    a state share them."""

    @property
    def decisive(self) -> int | None:
        """The turn, from 0, that changed the value most; None where no change is clear."""
        return decisive(self.values)

    @property
    def advantages(self) -> tuple[float, ...]:
        """Change of the value by each turn."""
        return tuple(after.value - before.value for before, after in pairwise(self.values))


def values_path(episodes: Path) -> Path:
    """The file of the values of the episodes in a file.

    Examples:
        >>> values_path(Path("eval/before.jsonl")).as_posix()
        'eval/before.values.jsonl'
    """
    return episodes.with_name(episodes.name.partition(".jsonl")[0] + SUFFIX)


def write_values(path: Path, header: Mapping[str, object], found: Sequence[ValuedEpisode]) -> None:
    """Write a file at once, so that nothing half-written stays."""
    lines = [dumps({"header": {"schema": SCHEMA, **header}})]
    lines += [dumps(_plain(episode)) for episode in found]
    write_atomic(path, "".join(line + "\n" for line in lines))


def _plain(episode: ValuedEpisode) -> dict[str, Any]:
    task = episode.task
    return {
        "env": task.env,
        "task": task.id,
        "seed": task.seed,
        "sample": episode.sample,
        "version": episode.version,
        "won": episode.won,
        "decisive": episode.decisive,
        "actions": episode.actions,
        "values": [list(value) for value in episode.values],
        "continuations": episode.continuations,
    }


def read_values(path: Path) -> tuple[dict[str, Any], list[ValuedEpisode]]:
    """Header and episodes of a file.

    Raises:
        ConfigError: It is no file of turn values of this schema.
    """
    lines = list(read_objects(path))
    header = lines[0].get("header") if lines else None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise ConfigError(f"{path} is no file of turn values of schema {SCHEMA}")
    try:
        return header, [_episode(line) for line in lines[1:]]
    except (KeyError, TypeError, ValueError) as problem:
        raise ConfigError(f"{path} holds a damaged episode: {problem!r}") from problem


def _episode(line: Mapping[str, Any]) -> ValuedEpisode:
    return ValuedEpisode(
        task=Task(line["env"], line["task"], line["seed"]),
        sample=line["sample"],
        version=line["version"],
        won=line["won"],
        actions=tuple(line["actions"]),
        values=tuple(Value(*value) for value in line["values"]),
        continuations=tuple(line["continuations"]),
    )
