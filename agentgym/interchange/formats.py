"""What a format is, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from agentgym.errors import ConfigError, did_you_mean
from agentgym.evaluation.records import EpisodeRecord

Report = Callable[[str], None]
"""Called with one line for everything that is left out."""


class Format(Protocol):
    """A module of this package; its functions write and read files of one format."""

    def write(self, records: Iterable[EpisodeRecord], path: Path) -> int:
        """Write all episodes, whole or not at all; returns their number."""

    def read(self, path: Path, report: Report) -> Iterator[EpisodeRecord]:
        """The episodes of a file; one that cannot be read is reported and left out."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A format in the list."""

    name: str
    about: str
    suffix: str
    """Ending of the files it writes; ``/`` for a folder."""
    loses: tuple[str, ...]
    """Fields of our records that do not come back."""
    extra: str = ""
    """Extra of this package that it needs."""

    @property
    def module(self) -> Format:
        """Its functions.

        Raises:
            MissingExtra: Its package is not installed (raised by the functions).
        """
        found: Format = import_module(f"agentgym.interchange.{self.name}_format")
        return found


_TOKENS = ("prompt", "tokens", "ends", "logprobs", "entropies", "versions", "advantages")

FORMATS = {
    each.name: each
    for each in (
        Entry(
            name="openai",
            about="messages with tools and calls in JSON lines, as fine-tuning services read them",
            suffix=".messages.jsonl",
            loses=_TOKENS,
        ),
        Entry(
            name="atif",
            about="ATIF v1.7, the trajectories of Harbor: a folder with a JSON file per episode",
            suffix=".atif/",
            loses=(),
        ),
        Entry(
            name="verl",
            about="Parquet for verl: messages, prompts and rewards, tokens with their loss mask",
            suffix=".verl.parquet",
            loses=(),
            extra="parquet",
        ),
        Entry(
            name="trl",
            about="a conversational dataset in JSON lines for TRL's trainers: messages, tools",
            suffix=".trl.jsonl",
            loses=_TOKENS,
        ),
        Entry(
            name="inspect",
            about="a log of Inspect AI (.eval), for `inspect view` and its data frames",
            suffix=".eval",
            loses=_TOKENS,
            extra="inspect",
        ),
    )
}


def entry(name: str) -> Entry:
    """A format by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in FORMATS:
        raise ConfigError(
            f"there is no format {name!r}.{did_you_mean(name, FORMATS)} "
            f"Formats: {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def guess(path: Path) -> Entry:
    """The format of a file, from its name and its beginning.

    Raises:
        ConfigError: It is none of the known ones.
    """
    if path.is_dir():
        return FORMATS["atif"]
    if path.suffix in (".parquet", ".eval"):
        return FORMATS["verl" if path.suffix == ".parquet" else "inspect"]
    try:
        with path.open("rb") as file:
            start = file.read(65_536)
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem.strerror}") from problem
    if b'"ATIF-v' in start:
        return FORMATS["atif"]
    if b'"messages"' in start:
        return FORMATS["openai"]
    if b'"eval"' in start and b'"version"' in start:
        return FORMATS["inspect"]
    raise ConfigError(
        f"{path} is of no known format: name it with `--format`, one of {', '.join(FORMATS)}"
    )
