"""The logs of a run: one JSON line per training step, and trimming them on resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from agentgym.errors import ConfigError
from agentgym.utils.jsonl import append_line, dumps, read_objects, write_atomic, write_lines


def truncate_episodes(path: Path, count: int) -> None:
    """Cut the file to its first ``count`` episodes; a resumed run plays the others again.

    Args:
        path: The file; nothing happens when there is none.
        count: Episodes to keep, the first ones.
    """
    if path.exists():
        kept = islice(read_objects(path), count)
        write_lines(path, map(dumps, kept))


class MetricsWriter:
    """Writes ``metrics.jsonl``: one line of named numbers for each step.

    Args:
        path: The file.
        resume: Step that the run continues from; later lines are cut, because those steps are
            played again. None starts a new file.

    Raises:
        ConfigError: The file holds metrics already and ``resume`` is None.
    """

    def __init__(self, path: Path, *, resume: int | None = None) -> None:
        self.path = path
        count = len(read_metrics(path)) if path.exists() else 0
        if count and resume is None:
            raise ConfigError(
                f"{path} already holds {count} lines: resume that run or choose another folder"
            )
        found = read_objects(path) if count else ()
        kept = [line for line in found if resume is not None and line["step"] <= resume]
        write_atomic(path, "".join(dumps(line) + "\n" for line in kept))
        self._last = max((line["step"] for line in kept), default=None)

    def write(self, step: int, values: Mapping[str, float | int]) -> None:
        """Add one line; NaN and infinity are written as null.

        Raises:
            ValueError: ``step`` lies before the last one written.
        """
        if self._last is not None and step < self._last:
            raise ValueError(f"metrics of step {step} after those of step {self._last}")
        self._last = step
        numbers = {name: _number(value) for name, value in values.items()}
        append_line(self.path, dumps({"step": step, **numbers}))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Every complete line of a metrics file, each with its ``step``; null is read as NaN.

    Raises:
        ConfigError: The file holds something else.
    """
    lines = list(read_objects(path))
    for number, line in enumerate(lines, start=1):
        if not all(isinstance(value, float | int | None) for value in line.values()):
            raise ConfigError(f"{path}, line {number}: metrics are numbers, got something else")
        if not isinstance(line.get("step"), int):
            raise ConfigError(f"{path}, line {number}: metrics without a step")
    return [
        {name: math.nan if value is None else float(value) for name, value in line.items()}
        for line in lines
    ]


def _number(value: float | int) -> float | int:
    """A plain Python number, whatever numpy or torch scalar came in."""
    return value if isinstance(value, int) else float(value)
