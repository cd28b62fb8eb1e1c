"""A card: one page of Markdown from which another person can reproduce an evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.evaluation.measures import SCORE, TURNS, passes, passes_all
from agentgym.evaluation.render import cost_summary, counts
from agentgym.evaluation.report import Report
from agentgym.utils import yaml_config

MARK = "<!-- agentgym card "
"""Begins the line that names the file of episodes and its hash."""
OF_AN_EVALUATION = (
    *("env", "env_args", "tools", "user", "model", "engine", "server", "engine_device"),
    *("batch_invariant", "seed", "agent", "rollout", "panel", "endpoint"),
)
"""Settings that are not of training alone."""


def card_of(report: Report, command: str) -> str:
    """The card of a report whose episodes lie in a file.

    Args:
        report: The result.
        command: The command line that gave it.
    """
    assert report.path is not None, "a card names the file of its episodes"
    return "\n".join([*_lines(report, report.path, command), ""])


def _lines(report: Report, path: Path, command: str) -> Iterator[str]:
    panel, spec = report.panel, report.spec
    yield f"# {spec.label} on {panel.env} {panel.split}"
    yield ""
    yield f"{MARK}{path.name} sha256:{sha256(path)} -->"
    yield ""
    yield from _table(("measure", "value and 95 % interval over tasks"), _results(report))
    if len(report.task_types) > 1:
        yield ""
        kinds = [(kind or "(none)", report.only(kind)) for kind in report.task_types]
        rows = [(kind, str(len(part.tasks)), str(part.pass_at(1))) for kind, part in kinds]
        yield from _table(("task type", "tasks", "pass@1"), rows)
    yield ""
    yield f"Episodes: {counts(report.endings)}; lost to environment errors: {report.lost}."
    yield ""
    yield "## What was evaluated"
    yield ""
    yield from _table(("", ""), _facts(report))
    yield ""
    yield "## Cost"
    yield ""
    grid = cost_summary([report])
    yield from _table(grid.columns, grid.rows)
    yield ""
    yield "## Reproduce"
    yield ""
    yield "```bash"
    yield command
    yield f"agentgym verify {path.with_suffix('.md').name}"
    yield "```"
    yield ""
    yield "Versions: " + ", ".join(f"{name} {number}" for name, number in spec.versions.items())
    yield ""
    yield "Settings:"
    yield ""
    yield "```yaml"
    yield yaml_config.dump(_settings(spec.experiment)).rstrip()
    yield "```"


def _settings(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that an evaluation depends on."""
    kept = {name: experiment[name] for name in OF_AN_EVALUATION if name in experiment}
    precision = experiment.get("optimizer", {}).get("precision", "auto")
    return {**kept, "optimizer": {"precision": precision}}


def _results(report: Report) -> list[tuple[str, str]]:
    measures = [*map(passes, report.ks), *map(passes_all, report.ks[1:]), SCORE, TURNS]
    rows = [(measure.name, str(report.mean(measure))) for measure in measures]
    return [*rows, ("valid actions", f"{report.valid_share:.2f}")]


def _facts(report: Report) -> list[tuple[str, str]]:
    panel, spec = report.panel, report.spec
    settings = dict(spec.settings)
    shown = {
        "model": spec.name or spec.model,
        "fingerprint of weights and tokenizer": spec.model,
        "environment": panel.env,
        "split": f"{panel.split}, {len(panel)} tasks",
        "panel digest": panel.digest,
        "episodes per task (n)": report.episodes,
        "k": ", ".join(map(str, report.ks)),
        "intervals": report.method,
        **settings,
    }
    return [(name, f"`{value}`") for name, value in shown.items()]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        yield f"| {' | '.join(cells)} |"


def sha256(path: Path) -> str:
    """Hash of a file; 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def episodes_of_card(card: Path) -> tuple[Path, str]:
    """The file of episodes that a card names, which lies beside it, and what is said about it.

    Returns:
        The file, and a line if its content is no longer that of the card; else an empty one.

    Raises:
        ConfigError: It is not a card, or the file is missing.
    """
    try:
        lines = card.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{card} is not a card of `agentgym eval --card`") from problem
    marked = next((line for line in lines if line.startswith(MARK)), None)
    if marked is None:
        raise ConfigError(f"{card} is not a card of `agentgym eval --card`")
    name, _, rest = marked.removeprefix(MARK).rpartition(" sha256:")
    path = card.with_name(name)
    if not path.is_file():
        raise ConfigError(f"{card} is about {name}, which is not beside it: put it there")
    if sha256(path) != rest.removesuffix(" -->"):
        return path, f"{name} is not the file of the card: its SHA-256 is another"
    return path, ""
