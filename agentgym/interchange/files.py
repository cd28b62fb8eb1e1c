"""From one file to another: export of our records, import into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import LeftOut, episode_files, valid_episodes
from agentgym.evaluation.records import EpisodeRecord
from agentgym.interchange.formats import entry, guess
from agentgym.utils.jsonl import write_lines


class Written(NamedTuple):
    """A file that was written."""

    path: Path
    episodes: int
    warnings: tuple[str, ...]
    """What was left out, one line each."""


def export(source: Path, to: str, out: Path | None = None) -> Written:
    """Write the episodes of a run folder or file in another format.

    Args:
        source: Run folder, or file of episodes.
        to: Name of the format.
        out: The new file or folder; unset: beside the source, named after it.

    Raises:
        ConfigError: There is no such format or source, or no episode in it.
        MissingExtra: The format needs a package that is not installed.
    """
    chosen = entry(to)
    files = episode_files(source)
    target = out or _beside(source if source.is_dir() else files[0], chosen.suffix)
    _check_apart(target, files)
    left_out = LeftOut()
    first, episodes = _first(_all(files, left_out), source, left_out)
    count = chosen.module.write(_joined(first, episodes), target)
    return Written(target, count, left_out.summary())


def import_file(source: Path, format: str | None = None, out: Path | None = None) -> Written:
    """Write the episodes of a file of another project as records.

    Args:
        source: The file, or a folder of ATIF trajectories.
        format: Name of its format; unset: found from the file.
        out: The new file of episodes; unset: beside the source, named after it.

    Raises:
        ConfigError: The file is of no known format, or has no episode that can be read.
        MissingExtra: The format needs a package that is not installed.
    """
    if not source.exists():
        raise ConfigError(f"there is no file {source}")
    chosen = guess(source) if format is None else entry(format)
    target = out or _beside(source, ".episodes.jsonl")
    _check_apart(target, [source])
    left_out = LeftOut()
    first, episodes = _first(chosen.module.read(source, left_out), source, left_out)
    lines = [record.to_json() for record in _joined(first, episodes)]
    write_lines(target, lines)
    return Written(target, len(lines), left_out.summary())


def _all(files: Sequence[Path], left_out: LeftOut) -> Iterator[EpisodeRecord]:
    for file in files:
        yield from valid_episodes(file, left_out)


def _first(
    episodes: Iterator[EpisodeRecord], source: Path, left_out: LeftOut
) -> tuple[EpisodeRecord, Iterator[EpisodeRecord]]:
    """The first episode, before anything is written."""
    found = next(episodes, None)
    if found is None:
        reason = left_out.lines[0] if left_out.lines else "it is empty"
        raise ConfigError(f"no episode can be read from {source}: {reason}")
    return found, episodes


def _joined(first: EpisodeRecord, others: Iterator[EpisodeRecord]) -> Iterator[EpisodeRecord]:
    yield first
    yield from others


def _check_apart(target: Path, sources: Sequence[Path]) -> None:
    if any(target.exists() and target.samefile(source) for source in sources):
        raise ConfigError(f"{target} is the source itself: choose another `--out`")


def _beside(source: Path, suffix: str) -> Path:
    name = source.name
    for ending in (".zst", ".jsonl", ".json", ".parquet", ".eval", ".messages", ".trl", ".atif"):
        name = name.removesuffix(ending)
    return source.with_name(f"{name}{suffix}".rstrip("/"))
