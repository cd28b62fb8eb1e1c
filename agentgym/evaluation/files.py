"""Evaluation files: a header (panel, model, settings), then one finished episode per line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.records import SCHEMA, read_episodes
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.types import Task
from agentgym.utils.jsonl import append_line, dumps, read_objects


def default_path(panel: Panel, spec: EvalSpec) -> Path:
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
    return Path("evals") / f"{(name[0] or name[2]).lower()}-{panel.split}-{digest}.jsonl"


def read_report(path: Path) -> Report:
    """The report of an evaluation file, finished or not.

    Raises:
        ConfigError: There is no such file, or it is not an evaluation file.
    """
    if not path.exists():
        raise ConfigError(f"no evaluation file at {path}")
    panel, spec = read_header(path)
    records = read_episodes(path)
    episodes = 1 + max((record.sample for record in records), default=0)
    return Report.of(panel, spec, records, episodes=episodes)


def open_file(path: Path, panel: Panel, spec: EvalSpec) -> set[tuple[Task, int]]:
    """Episodes of a file that are already scored; a new file gets its header.

    Raises:
        ConfigError: The file belongs to another panel, model or settings.
    """
    if not path.exists() or b"\n" not in path.read_bytes():
        append_line(path, dumps({"header": _header(panel, spec)}))
        return set()
    changes = list(_changes(*read_header(path), panel, spec))
    if changes:
        raise ConfigError(
            f"{path} holds another evaluation: {'; '.join(changes)}. Choose another file"
        )
    return {record.key for record in read_episodes(path) if record.stop.scored}


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
    }


def read_header(path: Path) -> tuple[Panel, EvalSpec]:
    """Panel and subject of an evaluation file.

    Raises:
        ConfigError: It is not an evaluation file, or was altered.
    """
    first = next(read_objects(path), {})
    header = first.get("header")
    if header is None or header["schema"] != SCHEMA:
        raise ConfigError(
            f"{path} is not an evaluation file of schema {SCHEMA}: "
            f"the header is missing or of another version"
        )
    tasks = tuple(Task(header["env"], id_, seed) for id_, seed in header["tasks"])
    panel = Panel(header["env"], header["split"], tasks)
    if panel.digest != header["panel"]:
        raise ConfigError(
            f"{path} was altered: its tasks do not match the panel digest in its header"
        )
    return panel, EvalSpec(header["model"], header["settings"], header["name"])


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
