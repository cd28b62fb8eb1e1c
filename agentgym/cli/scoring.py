"""`agentgym score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse, take
from agentgym.errors import ConfigError
from agentgym.evaluation.tables import Grid
from agentgym.scoring.make import make_scorer
from agentgym.scoring.rescore import Rescored, rescore
from agentgym.settings import ScoringSettings
from agentgym.utils.concurrency import run_sync
from agentgym.utils.jsonl import read_lines
from agentgym.utils.progress import Display

MOST_REASONS = 5
"""Unscored episodes that are named."""


@dataclass(frozen=True, kw_only=True)
class ScoreArguments(ScoringSettings):
    r"""Score stored episodes by a function or a judge, without playing them again.

    The scores go to a new file beside the old one, with those of the environment, and the agreement
    of both is reported. An episode without a usable score is counted and left out, never scored 0;
    the same command asks for it again.

        agentgym score RUN/eval/after.jsonl --with mine.py:brevity
        agentgym score RUN/eval/after.jsonl --judge http://127.0.0.1:8000 --model NAME \
            --rubric rubric.yaml

    A function takes an `agentgym.evaluation.records.EpisodeRecord` and returns a number from 0 to
    1, a truth value, or None where it has no score. A rubric is YAML: `criteria`, each with `name`,
    `description` and `weight`; `instructions`; `pass_mark`.
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """File of episodes."""
    out: Path | None = None
    """The new file; unset: NAME.scored.jsonl beside it. An existing one is continued."""


def score(arguments: list[str]) -> int:
    """``score FILE (--with NAME | --judge URL --model NAME --rubric FILE) [options]``."""
    rest = list(arguments)
    if (function := take(rest, "--with")) is not None:
        rest += ["--scorer", function]
    options = parse(ScoreArguments, rest, prog="agentgym score")
    if not options.source.is_file():
        raise ConfigError(
            f"{options.source} is no file of episodes: name one, such as RUN/eval/after.jsonl"
        )
    display = Display(Console())
    scorer = make_scorer(options, display.say)
    lines = sum(1 for _ in read_lines(options.source))
    with display.stage(f"score: {scorer.name}", lines) as advance:
        found = run_sync(
            lambda: rescore(
                options.source,
                scorer,
                options.out,
                concurrency=options.concurrency,
                progress=lambda done, total: advance(done),
            )
        )
    for line in report(found, scorer.name):
        display.say(line)
    return 0


def report(found: Rescored, name: str) -> list[str]:
    """What is shown in the end."""
    rows = tuple(
        (who, f"{mean:.3f}", f"{100 * won:.1f} %")
        for who, (mean, won) in (("environment", found.world), (name, found.scorer))
    )
    lines = [f"warning: {line}" for line in found.warnings]
    lines += [f"unscored: {line}" for line in found.unscored[:MOST_REASONS]]
    if len(found.unscored) > MOST_REASONS:
        lines.append(f"{len(found.unscored) - MOST_REASONS} further episodes are unscored")
    counts = f"{found.scored} episodes scored, {len(found.unscored)} unscored"
    if found.broken:
        counts += f", {found.broken} that the environment has not scored"
    if found.agreement.episodes:
        grid = Grid(
            title=f"{found.agreement.episodes} episodes with both scores",
            columns=("scored by", "mean score", "success"),
            rows=rows,
        )
        lines += [grid.text().rstrip(), str(found.agreement)]
    return [*lines, f"{counts}; in {found.path}"]
