"""Files of episode records: one JSON line per episode, after a line with a header or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.utils.jsonl import append_line, parse_object, read_lines, read_objects


def append(path: Path, record: EpisodeRecord) -> None:
    """Add one episode to a file, whole or not at all."""
    append_line(path, record.to_json())


def read_episodes(path: Path) -> tuple[EpisodeRecord, ...]:
    """Every complete episode of a file, in file order; header lines are skipped.

    Raises:
        ConfigError: A line other than the last one is damaged.
    """
    return tuple(iterate_episodes(path))


MOST_REPORTED = 5
"""Lines of a file that are named when they are left out; the others are counted."""


class LeftOut:
    """Collects what ``valid_episodes`` reports."""

    def __init__(self) -> None:
        """Nothing is left out yet."""
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        """One more line."""
        self.lines.append(line)

    def summary(self) -> tuple[str, ...]:
        """The first lines, and the number of the others."""
        more = len(self.lines) - MOST_REPORTED
        count = (f"{more} further lines are left out",) if more > 0 else ()
        return (*self.lines[:MOST_REPORTED], *count)


def valid_episodes(path: Path, report: Callable[[str], None]) -> Iterator[EpisodeRecord]:
    """Every episode of a file that can be read, one by one.

    Args:
        path: The file.
        report: Called with one line for each line of the file that is left out, and why.

    Raises:
        ConfigError: There is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    number, lines = 0, read_lines(path)
    while True:
        number += 1
        try:
            line = next(lines, None)
            if line is None:
                return
            found = parse_object(line.decode())
            if "header" not in found:
                yield EpisodeRecord.from_object(found)
        except (ConfigError, UnicodeDecodeError) as problem:
            report(f"{path}, line {number} is left out: {problem}")


def episode_files(path: Path) -> list[Path]:
    """The files of episodes behind a path: a file, or those of a run folder.

    Raises:
        ConfigError: There is no such file, or no episodes in the folder.
    """
    if path.is_file():
        return [path]
    found = [each for each in _files_in(path) if each.name.startswith("episodes.jsonl")]
    found = [*found, *_files_in(path / "eval")] or _files_in(path)
    others = ("metrics.jsonl", ".values.jsonl")
    found = [file for file in found if not file.name.endswith(others)]
    if not found:
        raise ConfigError(
            f"{path} has no episodes: expected a run folder or a .jsonl or .jsonl.zst file"
            if path.exists()
            else f"there is no file {path}"
        )
    return found


def _files_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.zst")])


def iterate_episodes(path: Path) -> Iterator[EpisodeRecord]:
    """The same one by one, so that the episodes before a damaged line can be used.

    Raises:
        ConfigError: At the first damaged line other than the last one.
    """
    for found in read_objects(path):
        if "header" not in found:
            yield EpisodeRecord.from_object(found)
