"""Values of turns beside the episodes they belong to, where ``agentgym probe`` has written them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.probe.files import ValuedEpisode, read_values, values_path

_DIGITS = 3


def attach_values(episodes: Iterable[dict[str, Any]], file: Path, label: str) -> str:
    """Add the values of a file of episodes to those of its label.

    An episode gets ``values``, triples of value, low and high end before each turn and after the
    last one; ``decisive``, a turn or None; and ``policy``, who continued it.

    Args:
        episodes: As the viewer shows them.
        file: The file that they come from.
        label: The name of this file in the viewer.

    Returns:
        A warning; empty where there is nothing to warn about.
    """
    path = values_path(file)
    if not path.is_file():
        return ""
    try:
        header, found = read_values(path)
    except ConfigError as problem:
        return f"{path} is left out: {problem}"
    known = {_key(each.task.id, each.task.seed, each.sample, each.version): each for each in found}
    for episode in episodes:
        key = _key(episode["task"], episode["seed"], episode["sample"], episode["step"])
        if episode["file"] == label and key in known:
            episode |= _shown(known[key], str(header.get("policy", "")))
    return ""


def _key(task: str, seed: int, sample: int, version: int) -> tuple[str, int, int, int]:
    return task, seed, sample, version


def _shown(valued: ValuedEpisode, policy: str) -> dict[str, Any]:
    values = [[round(number, _DIGITS) for number in value] for value in valued.values]
    return {"values": values, "decisive": valued.decisive, "policy": policy}
