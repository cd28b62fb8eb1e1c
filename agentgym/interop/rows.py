"""Tasks from a file of rows, for kinds with their tasks in a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agentgym.env.base import unknown_split
from agentgym.errors import ConfigError

Row = dict[str, Any]


def read_rows(path: str) -> list[Row]:
    """The rows of a JSON Lines file, or of a JSON file with a list.

    Raises:
        ConfigError: The file cannot be read, or holds no rows.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip()[:1] == "[" else list(map(json.loads, _lines(text)))
    except OSError as problem:
        raise ConfigError(f"data: {path} cannot be read ({problem.strerror})") from None
    except ValueError as problem:
        raise ConfigError(f"data: {path} is no JSON ({problem})") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"data: {path} holds no rows, expected one JSON object per line")
    return rows


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def split_rows(rows: list[Row], name: str, split: str) -> list[str]:
    """Task ids of a split: ``row-0``, ``row-1``, and so on.

    A row's field ``split`` names its split. Where no row has one, of ten rows eight are for
    training, one is for validation and one for the test.

    Raises:
        ConfigError: There is no such split.
    """
    if split not in ("train", "valid", "test"):
        raise unknown_split(name, split, ("train", "valid", "test"))
    named = any("split" in row for row in rows)
    cycle = ["train"] * 8 + ["valid", "test"]
    return [
        f"row-{number}"
        for number, row in enumerate(rows)
        if (row.get("split") if named else cycle[number % 10]) == split
    ]
