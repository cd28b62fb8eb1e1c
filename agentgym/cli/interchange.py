"""`agentgym export` and `agentgym import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agentgym.cli.parsing import parse
from agentgym.interchange.files import Written, export, import_file
from agentgym.interchange.formats import FORMATS

_LISTED = "\n".join(f"    {each.name:<8} {each.about}" for each in FORMATS.values())


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write episodes for other projects: fine-tuning data, trajectories, logs."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """Run folder (training episodes and evaluations), or a file of episodes."""
    to: str
    """Format: openai, atif, verl, trl or inspect."""
    out: Path | None = None
    """The new file, or folder for atif; unset: beside the source, named after it."""


ExportArguments.__doc__ = f"""{ExportArguments.__doc__}

Formats:
{_LISTED}

What does not fit a format stands in its metadata, so `agentgym import` gives the episodes back; the
documentation lists what each format loses. Damaged lines are left out with a warning.

    agentgym export RUN/episodes.jsonl --to trl
    agentgym export RUN/eval/after.jsonl --to inspect --out after.eval
"""


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """Write episodes of other projects as our records."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file, or a folder of ATIF trajectories."""
    format: str | None = None
    """Its format: openai, atif, verl, trl or inspect; unset: found from the file."""
    out: Path | None = None
    """The new file of episodes; unset: beside the source, named after it."""


ImportArguments.__doc__ = f"""{ImportArguments.__doc__}

Formats:
{_LISTED}

A conversation of another project becomes an episode of the environment `imported` with an unknown
score. One that cannot be read is left out with a warning.

    agentgym import data.jsonl --out episodes.jsonl
    agentgym view episodes.jsonl
"""


def export_episodes(arguments: list[str]) -> int:
    """``export RUN_OR_FILE --to FORMAT [--out PATH]``."""
    options = parse(ExportArguments, arguments, prog="agentgym export")
    return _told(export(options.source, options.to, options.out))


def import_episodes(arguments: list[str]) -> int:
    """``import FILE [--format FORMAT] [--out PATH]``."""
    options = parse(ImportArguments, arguments, prog="agentgym import")
    return _told(import_file(options.source, options.format, options.out))


def _told(written: Written) -> int:
    for warning in written.warnings:
        print(f"warning: {warning}")
    print(f"{written.episodes} episodes in {written.path}")
    return 0
