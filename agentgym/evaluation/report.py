"""The result of an evaluation as a value: success by task, with intervals and comparisons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.stats import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    pass_at_k,
    pass_hat_k,
)
from agentgym.evaluation.tables import Grid
from agentgym.types import Ending, Task

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What is evaluated, under which settings."""

    model: str
    """Fingerprint of the weights, or another name that changes when they do."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Everything else the result depends on: temperature, turn limit, prompt, env options."""
    name: str = field(default="", compare=False)
    """What reports call the model: its path or hub id; the fingerprint where it is empty."""

    @property
    def label(self) -> str:
        """Name for tables: the last two parts of a path, or the fingerprint."""
        return "/".join(self.name.split("/")[-2:]) or self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What happened on one task."""

    task: Task
    task_type: str
    finished: int
    """Scored episodes."""
    won: int
    lost: int
    """Episodes whose every attempt failed in the environment; they count in no other field."""
    score: float
    """Mean over finished episodes, in [0, 1]; NaN when there is none."""
    turns: float
    """Mean over finished episodes; NaN when there is none."""
    actions: int
    """Turns of all finished episodes."""
    valid: int
    """Those whose action the environment accepted."""
    endings: Mapping[Ending, int]
    """How its finished episodes ended."""
    failed_attempts: Mapping[Ending, int]
    """Endings of unscored attempts, retried or lost."""


Measure = Callable[[TaskResult], float]


class PairedDifference(NamedTuple):
    """One measure before and after, over the tasks with a value on both sides."""

    before: Interval
    after: Interval
    difference: Interval
    """Paired by task."""
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation of one model on one panel; tasks are in the panel's order.

    Intervals resample tasks with a generator of fixed seed unless one is handed in, so the same
    episodes always give the same report.
    """

    panel: Panel
    spec: EvalSpec
    episodes: int
    """Episodes asked for per task."""
    tasks: tuple[TaskResult, ...]

    @classmethod
    def of(
        cls, panel: Panel, spec: EvalSpec, records: Iterable[EpisodeRecord], *, episodes: int
    ) -> Report:
        """Summarise episodes; order matters only among attempts at the same episode.

        Args:
            panel: What was played.
            spec: What was evaluated.
            records: The episodes; of several attempts at one, the first scored one counts.
            episodes: Episodes per task; samples from this number on are ignored.
        """
        kept: dict[tuple[Task, int], EpisodeRecord] = {}
        for record in records:
            seen = kept.get(record.key)
            if record.sample < episodes and (seen is None or not seen.stop.scored):
                kept[record.key] = record if seen is None else _after(seen, record)
        by_task: dict[Task, list[EpisodeRecord]] = {task: [] for task in panel.tasks}
        for (task, _), record in sorted(kept.items(), key=lambda item: item[0][1]):
            if task not in by_task:
                raise ConfigError(f"an episode of {task}, which is not on the panel")
            by_task[task].append(record)
        tasks = tuple(_result(task, found) for task, found in by_task.items())
        return cls(panel=panel, spec=spec, episodes=episodes, tasks=tasks)

    @property
    def ks(self) -> tuple[int, ...]:
        """The k to report: powers of two up to the episodes per task."""
        return tuple(2**i for i in range(self.episodes.bit_length()))

    @property
    def lost(self) -> int:
        """Episodes whose every attempt failed in the environment."""
        return sum(task.lost for task in self.tasks)

    @property
    def endings(self) -> Counter[Ending]:
        """How finished episodes ended."""
        return sum((Counter(task.endings) for task in self.tasks), Counter())

    @property
    def failed_attempts(self) -> Counter[Ending]:
        """Endings of unscored attempts."""
        return sum((Counter(task.failed_attempts) for task in self.tasks), Counter())

    @property
    def valid_share(self) -> float:
        """Share of turns whose action the environment accepted; NaN without turns."""
        actions = sum(task.actions for task in self.tasks)
        return sum(task.valid for task in self.tasks) / actions if actions else math.nan

    @property
    def task_types(self) -> tuple[str, ...]:
        """Task types, sorted."""
        return tuple(sorted({task.task_type for task in self.tasks}))

    def only(self, task_type: str) -> Report:
        """The report restricted to one task type."""
        return replace(self, tasks=tuple(t for t in self.tasks if t.task_type == task_type))

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return grid(self).html()

    def __str__(self) -> str:
        """The table of ``render``."""
        return render(self)

    def with_at_least(self, k: int) -> int:
        """Number of tasks with at least k finished episodes, the ones that pass@k averages over."""
        return sum(task.finished >= k for task in self.tasks)

    def pass_at(self, k: int, rng: np.random.Generator | None = None) -> Interval:
        """Mean over tasks of the chance that at least one of k episodes succeeds."""
        return self.mean(passes(k), (0.0, 1.0), rng)

    def pass_hat(self, k: int, rng: np.random.Generator | None = None) -> Interval:
        """Mean over tasks of the chance that all of k episodes succeed."""
        return self.mean(_passes_all(k), (0.0, 1.0), rng)

    def score(self, rng: np.random.Generator | None = None) -> Interval:
        """Mean over tasks of the environment's score."""
        return self.mean(lambda task: task.score, (0.0, 1.0), rng)

    def turns(self, rng: np.random.Generator | None = None) -> Interval:
        """Mean over tasks of the turns per episode."""
        return self.mean(lambda task: task.turns, None, rng)

    def mean(
        self,
        measure: Measure,
        support: tuple[float, float] | None = None,
        rng: np.random.Generator | None = None,
    ) -> Interval:
        """Mean of a measure over the tasks where it is not NaN."""
        values = [value for task in self.tasks if not math.isnan(value := measure(task))]
        return bootstrap_mean(values, rng or np.random.default_rng(0), support=support)

    def metrics(self, prefix: str = "eval") -> dict[str, float]:
        """Named numbers for a metrics file."""
        found = {f"pass@{k}": self.pass_at(k).value for k in self.ks}
        named = filter(None, self.task_types)
        found |= {f"success/{kind}": self.only(kind).pass_at(1).value for kind in named}
        found |= {"score": self.score().value, "turns": self.turns().value}
        found |= {"valid": self.valid_share, "lost": float(self.lost)}
        ends = self.endings + self.failed_attempts
        found |= {f"ending/{ending}": float(ends[ending]) for ending in Ending}
        return {f"{prefix}/{name}": value for name, value in found.items()}


def passes(k: int) -> Measure:
    """pass@k of one task; NaN where fewer than k episodes finished."""
    return lambda task: pass_at_k(task.finished, task.won, k) if task.finished >= k else math.nan


def _passes_all(k: int) -> Measure:
    return lambda task: pass_hat_k(task.finished, task.won, k) if task.finished >= k else math.nan


def check_panels(before: Panel, after: Panel) -> None:
    """Refuse to compare reports on different panels.

    Raises:
        ConfigError: The panels differ.
    """
    if before != after:
        raise ConfigError(
            f"cannot compare results on panel {before.digest[:12]} ({before.env} {before.split}, "
            f"{len(before)} tasks) with {after.digest[:12]} ({after.env} {after.split}, "
            f"{len(after)} tasks): play the same panel"
        )


def paired_difference(
    before: Report,
    after: Report,
    measure: Measure,
    support: tuple[float, float] | None = None,
    rng: np.random.Generator | None = None,
) -> PairedDifference:
    """A measure before and after, and its paired difference.

    Raises:
        ConfigError: The reports are on different panels.
    """
    check_panels(before.panel, after.panel)
    rng = rng or np.random.default_rng(0)
    old = {result.task: measure(result) for result in before.tasks}
    pairs = [(old.get(new.task, math.nan), measure(new)) for new in after.tasks]
    known = [pair for pair in pairs if not any(map(math.isnan, pair))]
    first, second = [pair[0] for pair in known], [pair[1] for pair in known]
    return PairedDifference(
        bootstrap_mean(first, rng, support=support),
        bootstrap_mean(second, rng, support=support),
        bootstrap_difference(first, second, rng, support=support),
        len(known),
    )


def render(
    report: Report,
    before: Report | None = None,
    *,
    names: tuple[str, str] = ("before", "after"),
    width: int = 100,
) -> str:
    """A report as a plain-text table; with ``before``, also the paired difference.

    Args:
        report: The report.
        before: An earlier one on the same panel.
        names: Columns of the two.
        width: Characters per line.

    Raises:
        ConfigError: The two reports are on different panels.
    """
    return grid(report, before, names).text(width)


def grid(
    report: Report, before: Report | None = None, names: tuple[str, str] = ("before", "after")
) -> Grid:
    """The rows of ``render``."""
    panel = report.panel
    labels = (report.spec.label,) if before is None else (*names, "difference")
    rows = [
        (name, *_cells(report, before, measure, support))
        for name, measure, support in _lines(report)
    ]
    shares = [side.valid_share for side in (before, report) if side is not None]
    blank = () if before is None else ("",)
    rows.append(("valid actions", *(f"{share:.2f}" for share in shares), *blank))
    rule = len(rows) - 1
    for kind in report.task_types if len(report.task_types) > 1 else ():
        part = report.only(kind)
        earlier = None if before is None else before.only(kind)
        cells = _cells(part, earlier, passes(1), (0.0, 1.0))
        rows.append((f"pass@1 {kind} ({len(part.tasks)})", *cells))
    return Grid(
        title=f"{panel.env} {panel.split}: {len(panel)} tasks, panel {panel.digest[:12]}",
        columns=("measure", *labels),
        rows=tuple(rows),
        rule_after=rule,
        notes=tuple(_notes(report, before, names)),
    )


def _lines(report: Report) -> list[tuple[str, Measure, tuple[float, float] | None]]:
    unit = (0.0, 1.0)
    lines: list[tuple[str, Measure, tuple[float, float] | None]] = [
        (f"pass@{k}", passes(k), unit) for k in report.ks
    ]
    if len(report.ks) > 1:
        lines.append((f"pass^{report.ks[-1]}", _passes_all(report.ks[-1]), unit))
    lines.append(("score", lambda task: task.score, unit))
    lines.append(("turns", lambda task: task.turns, None))
    return lines


def _cells(
    report: Report, before: Report | None, measure: Measure, support: tuple[float, float] | None
) -> list[str]:
    if before is None:
        return [str(report.mean(measure, support))]
    gain = paired_difference(before, report, measure, support)
    value, low, high = gain.difference
    return [str(gain.before), str(gain.after), f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"]


def _notes(report: Report, before: Report | None, names: tuple[str, str]) -> list[str]:
    notes = ["Brackets: 95 % intervals, tasks resampled" + (", paired." if before else ".")]
    sides = (
        [("", report)] if before is None else [(f"{names[0]}: ", before), (f"{names[1]}: ", report)]
    )
    for name, side in sides:
        notes.append(f"{name}Episodes: {_counts(side.endings)}.")
        if side.failed_attempts:
            notes.append(
                f"{name}Failed attempts (environment errors): {_counts(side.failed_attempts)}."
            )
        if side.lost:
            short = len(side.tasks) - side.with_at_least(side.ks[-1])
            notes.append(
                f"{name}{side.lost} episodes were lost to environment errors and are not scored; "
                f"{short} tasks have too few episodes for pass@{side.ks[-1]}."
            )
    if before is not None:
        changed = [f"{name} {old} to {new}" for name, old, new in setting_changes(before, report)]
        if changed:
            notes.append(f"The settings differ, {names[0]} to {names[1]}: {', '.join(changed)}.")
    return notes


def setting_changes(one: Report, other: Report) -> list[tuple[str, Setting, Setting]]:
    """Settings of two evaluations that differ, with both values; None where one is absent."""
    names = sorted(one.spec.settings.keys() | other.spec.settings.keys())
    pairs = [(name, one.spec.settings.get(name), other.spec.settings.get(name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _counts(ends: Counter[Ending]) -> str:
    """Such as ``success 3, failure 1``."""
    return ", ".join(f"{ending} {ends[ending]}" for ending in Ending if ends[ending]) or "none"


def _after(earlier: EpisodeRecord, record: EpisodeRecord) -> EpisodeRecord:
    """The later record of an episode, with the attempts of the earlier one added."""
    return replace(
        record, failed_attempts=(*earlier.failed_attempts, earlier.stop, *record.failed_attempts)
    )


def _result(task: Task, records: list[EpisodeRecord]) -> TaskResult:
    done = [record for record in records if record.stop.scored]
    failed_attempts = [stop for record in records for stop in record.failed_attempts]
    failed_attempts += [record.stop for record in records if not record.stop.scored]
    turns = [turn for record in done for turn in record.turns]
    return TaskResult(
        task=task,
        task_type=next((record.task_type for record in records if record.task_type), ""),
        finished=len(done),
        won=sum(record.won for record in done),
        lost=len(records) - len(done),
        score=sum(record.score for record in done) / len(done) if done else math.nan,
        turns=len(turns) / len(done) if done else math.nan,
        actions=len(turns),
        valid=sum(turn.valid for turn in turns),
        endings=Counter(Ending.of(record.stop, record.won) for record in done),
        failed_attempts=Counter(Ending.of(stop, False) for stop in failed_attempts),
    )
