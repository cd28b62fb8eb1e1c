"""Evaluation files: a header (panel, model, settings), then one finished episode per line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.engines.stats import ChatUsage
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.records import READABLE, SCHEMA, EpisodeRecord
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.types import Task
from agentgym.utils.jsonl import (
    append_line,
    dumps,
    is_cut,
    parse_object,
    read_lines,
    read_objects,
)

USAGE = b'{"header":{"usage":'
"""Begins a line with what a chat endpoint counted; readers of episodes pass over it."""
MOST_NOTES = 3
"""Damaged lines that are described one by one."""


class Stored(NamedTuple):
    """What an evaluation file holds."""

    panel: Panel
    spec: EvalSpec
    records: tuple[EpisodeRecord, ...]
    notes: tuple[str, ...]
    """What was left out, one line each."""
    usage: ChatUsage | None = None
    """What a chat endpoint counted; None of other engines."""


def default_path(panel: Panel, spec: EvalSpec, folder: Path = Path("evals")) -> Path:
    """The file of an evaluation that names none; the same panel, model and settings give the same.

    Examples:
        >>> str(default_path(Panel("agentgym/Hotter-v0", "test", ()), EvalSpec("m")))
        'evals/hotter-test-776e4cbf.jsonl'
    """
    content = dumps(
        {
            "panel": panel.digest,
            "model": spec.model,
            "settings": dict(sorted(spec.settings.items())),
        }
    )
    digest = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    name = panel.env.rpartition("/")[2].rpartition(":")[2].rpartition("-v")
    return folder / f"{(name[0] or name[2]).lower()}-{panel.split}-{digest}.jsonl"


def path_of(given: Path | None, panel: Panel, spec: EvalSpec) -> Path:
    """The file that a name stands for: itself, one in a folder, or one in ``evals``."""
    if given is None:
        return default_path(panel, spec)
    return default_path(panel, spec, given) if given.is_dir() or not given.suffix else given


def read_report(path: Path) -> Report:
    """The report of an evaluation file, finished or not.

    Damaged lines are left out, and the report has a note of each.

    Raises:
        ConfigError: There is no such file, or it is not an evaluation file.
    """
    panel, spec, records, notes, usage = read_file(path)
    episodes = 1 + max((record.sample for record in records), default=0)
    report = Report.of(panel, spec, records, episodes=episodes)
    return replace(report, notes=notes, path=path, usage=usage)


def read_file(path: Path) -> Stored:
    """Everything of an evaluation file that can be used.

    Raises:
        ConfigError: There is no such file, or it is not an evaluation file.
    """
    if not path.exists():
        raise ConfigError(f"no evaluation file at {path}")
    panel, spec = read_header(path)
    records: list[EpisodeRecord] = []
    notes: list[str] = []
    usage: ChatUsage | None = None
    try:
        for number, line in enumerate(read_lines(path), start=1):
            if line.startswith(USAGE):
                usage = (usage or ChatUsage()).plus(_usage_of(line))
            elif number > 1:
                records += _usable(line, panel, f"{path}, line {number}", notes)
    except ConfigError as problem:
        notes.append(f"{problem}: what follows is left out")
    if is_cut(path):
        notes.append(f"{path}: the unfinished last line is left out.")
    more = len(notes) - MOST_NOTES
    shown = notes[:MOST_NOTES] + ([f"{path}: {more} more lines are left out."] if more > 0 else [])
    return Stored(panel, spec, tuple(records), tuple(shown), usage)


def usage_line(usage: ChatUsage) -> str:
    """The line that keeps what a chat endpoint counted in one call."""
    return dumps({"header": {"usage": usage._asdict()}})


def _usage_of(line: bytes) -> ChatUsage:
    """Zeros of a line that was damaged."""
    try:
        return ChatUsage(**parse_object(line.decode())["header"]["usage"])
    except (ConfigError, LookupError, TypeError, UnicodeDecodeError):
        return ChatUsage()


def _usable(line: bytes, panel: Panel, place: str, notes: list[str]) -> list[EpisodeRecord]:
    """The episode of a line, or none and a note."""
    try:
        return [_episode(line, panel)]
    except (ConfigError, UnicodeDecodeError) as problem:
        notes.append(f"{place} is left out: {problem}")
        return []


def _episode(line: bytes, panel: Panel) -> EpisodeRecord:
    record = EpisodeRecord.from_object(parse_object(line.decode()))
    if record.panel != panel.digest or record.key[0] not in panel.tasks:
        raise ConfigError(f"an episode of {record.task!r}, played for another panel")
    return record


def open_file(path: Path, panel: Panel, spec: EvalSpec) -> tuple[EpisodeRecord, ...]:
    """Episodes of a file that are already scored; a new file gets its header.

    Raises:
        ConfigError: The file belongs to another panel, model or settings.
    """
    if not path.exists() or next(read_lines(path), None) is None:
        append_line(path, dumps({"header": _header(panel, spec)}))
        return ()
    changes = list(_changes(*read_header(path), panel, spec))
    if changes:
        raise ConfigError(
            f"{path} holds another evaluation: {'; '.join(changes)}. Choose another file"
        )
    return tuple(record for record in read_file(path).records if record.stop.scored)


def _header(panel: Panel, spec: EvalSpec) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "env": panel.env,
        "split": panel.split,
        "panel": panel.digest,
        "tasks": [[task.id, task.seed] for task in panel.tasks],
        "model": spec.model,
        "name": spec.name,
        "settings": dict(sorted(spec.settings.items())),
        "experiment": dict(spec.experiment),
        "versions": dict(spec.versions),
    }


def read_header(path: Path) -> tuple[Panel, EvalSpec]:
    """Panel and subject of an evaluation file.

    Raises:
        ConfigError: It is not an evaluation file, or was altered.
    """
    header = next(_objects(path), {}).get("header")
    if not isinstance(header, dict) or header.get("schema") not in READABLE:
        raise ConfigError(
            f"{path} is not an evaluation file of schema {SCHEMA}: "
            f"the header is missing or of another version"
        )
    try:
        tasks = tuple(Task(header["env"], id_, seed) for id_, seed in header["tasks"])
        panel = Panel(header["env"], header["split"], tasks)
        spec = EvalSpec(
            header["model"],
            header["settings"],
            header["name"],
            experiment=header.get("experiment", {}),
            versions=header.get("versions", {}),
        )
        digest = header["panel"]
    except (LookupError, TypeError, ValueError) as problem:
        raise ConfigError(f"{path} has a damaged header: {problem!r}") from problem
    if panel.digest != digest:
        raise ConfigError(
            f"{path} was altered: its tasks do not match the panel digest in its header"
        )
    return panel, spec


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from read_objects(path)
    except IsADirectoryError as problem:
        raise ConfigError(
            f"{path} is a folder without a config.yaml: give a run folder or an evaluation file"
        ) from problem


def _changes(old: Panel, who: EvalSpec, new: Panel, now: EvalSpec) -> Iterator[str]:
    """Differences between the evaluation in the file and the requested one."""
    if old != new:
        yield f"its panel is {_name(old)}, requested {_name(new)}"
    if who.model != now.model:
        yield f"its model is {who.model!r}, requested {now.model!r}"
    for name in sorted(who.settings.keys() | now.settings.keys()):
        first, second = (side.settings.get(name, "absent") for side in (who, now))
        if first != second:
            yield f"its {name} is {first!r}, requested {second!r}"


def _name(panel: Panel) -> str:
    return f"{panel.env} {panel.split} ({len(panel)} tasks, {panel.digest[:12]})"
