"""`agentgym compare` and `agentgym plan-eval`."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.errors import ConfigError
from agentgym.evaluation.stats.intervals import IntervalMethod
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """Test whether evaluations on one panel differ, by how much, and on which tasks.

    Ways to call it:
        agentgym compare RUN                              # after training against before
        agentgym compare RUN_A RUN_B RUN_C                # every pair, Holm-corrected
        agentgym compare evals/a.jsonl evals/b.jsonl --measure pass@8
        agentgym compare 'grpo=runs/grpo-*' 'epo=runs/epo-*'   # several seeds of two methods

    Tasks are compared one by one, so what is hard for all cancels. Run folders that differ only in
    their seed are one arm, and so are those of `NAME=PATTERN`; with two or more seeds on both
    sides, intervals and p-values are over seeds, too, and hold for training again. Panels that
    differ are compared on their common tasks.
    """

    evaluations: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN_OR_FILE")
    ]
    """Run folders, or files that `agentgym eval` wrote; `NAME=` before one names it, commas or a
    pattern after it give several seeds."""
    measure: str = "pass@1"
    """What is compared: pass@K, pass^K, best@K, worst@K, score or turns."""
    intervals: IntervalMethod = "analytic"
    """How intervals are computed."""


def compare(arguments: list[str]) -> int:
    """``compare [NAME=]RUN_OR_FILE ...``."""
    options = parse(CompareArguments, arguments, prog="agentgym compare")
    from agentgym.experiment.api import compare as compare_evaluations
    from agentgym.experiment.api import report_of

    if not options.evaluations:
        raise ConfigError("nothing to compare: give run folders, or files that `eval` wrote")
    arms = _by_settings([_arm(word) for word in options.evaluations])
    names = [name or paths[0] for name, paths in arms] if any(name for name, _ in arms) else []
    if len(arms) == 1 and len(arms[0][1]) == 1:
        found = compare_evaluations(arms[0][1][0], measure=options.measure)
    else:
        groups = [
            [replace(report_of(path), method=options.intervals) for path in paths]
            for _, paths in arms
        ]
        found = compare_evaluations(*groups, names=names, measure=options.measure)
    Display(Console()).say(str(found))
    return 0


def _arm(word: str) -> tuple[str, list[str]]:
    """Name and files of an arm; the name is empty where none is given.

    Raises:
        ConfigError: A pattern matches nothing.
    """
    name, equals, rest = word.partition("=")
    if not equals or "/" in name or Path(word).exists():
        return "", [word]
    paths = [path for each in rest.split(",") for path in _matches(each)]
    return name, paths


def _by_settings(arms: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Run folders that differ only in their seed joined to arms, where two or more arms remain."""
    paths = [path for _, each in arms for path in each]
    runs_alone = all((Path(path) / "config.yaml").is_file() for path in paths)
    if any(name for name, _ in arms) or len(paths) < 3 or not runs_alone:
        return arms
    from agentgym.experiment.report_page import read_run
    from agentgym.experiment.run_folder import RunFolder
    from agentgym.run_report.run import arms_of

    runs = [read_run(RunFolder(Path(path))) for path in paths]
    where = {id(run): path for run, path in zip(runs, paths, strict=True)}
    found = [(arm.label, [where[id(run)] for run in arm.runs]) for arm in arms_of(runs)]
    return found if 1 < len(found) < len(paths) else arms


def _matches(pattern: str) -> Sequence[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    if found := sorted(glob.glob(pattern)):
        return found
    raise ConfigError(f"nothing matches {pattern}")


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """Compute how many tasks and episodes an evaluation needs.

    Ways to call it:
        agentgym plan-eval --margin 3                     # one success rate, +-3 points
        agentgym plan-eval --margin 3 --paired            # a difference of two, +-3 points
        agentgym plan-eval --margin 3 --paired --power 0.8     # to find a difference of 3 points
        agentgym plan-eval --margin 3 --like evals/a.jsonl     # tasks as hard as those
        agentgym plan-eval --tasks 134 --n 1 4 8          # what a panel of 134 tasks can show

    More tasks help always. More episodes of each help until the differences between tasks are what
    is left, which depends on how alike episodes of one task are (`--icc`).
    """

    margin: float = 3.0
    """Half of the length of the 95 % interval, in points (hundredths); with `--power`, the
    difference to be found."""
    base: float | None = None
    """Expected success rate, in [0, 1]; unset: that of `--like`, else 0.5, which needs most."""
    n: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Episodes per task."""
    tasks: int | None = None
    """Compute what this number of tasks reaches, instead of how many are needed."""
    paired: bool = False
    """Plan the difference of two on one panel, instead of one success rate."""
    power: float | None = None
    """Chance that a true difference of the margin is found significant, such as 0.8."""
    icc: float | None = None
    """How alike episodes of one task are: 0 not at all, 1 always the same; unset: that of `--like`,
    else 0.4."""
    pairing: float | None = None
    """Correlation, over tasks, of the chances of the two that are compared; unset: that of two
    files in `--like`, else 0.7."""
    like: tuple[Path, ...] = ()
    """Evaluation files or run folders from which base, icc and pairing are taken."""


def plan_eval(arguments: list[str]) -> int:
    """``plan-eval [options]``."""
    options = parse(PlanArguments, arguments, prog="agentgym plan-eval")
    from agentgym.evaluation.plan_eval import Wish, plan_grid

    given = {name: getattr(options, name) for name in ("base", "icc", "pairing")}
    wish = Wish(
        margin=options.margin / 100,
        episodes=options.n,
        tasks=options.tasks,
        paired=options.paired or options.power is not None,
        power=options.power,
        given={name: value for name, value in given.items() if value is not None},
    )
    reports = []
    if options.like:
        from agentgym.experiment.api import report_of

        reports = [report_of(path) for path in options.like]
    Display(Console()).say(plan_grid(wish, reports).text())
    return 0
