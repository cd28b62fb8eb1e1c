"""The result of an evaluation as a value: success by task, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentgym.engines.stats import ChatUsage
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.cost import FREE, Cost, Prices
from agentgym.evaluation.measures import SCORE, TURNS, Measure, best, passes, passes_all
from agentgym.evaluation.paired import mean_of
from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.render import grid, render
from agentgym.evaluation.spec import EvalSpec
from agentgym.evaluation.stats.intervals import Interval, IntervalMethod
from agentgym.evaluation.task_result import TaskResult, result_of
from agentgym.types import Ending, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation of one model on one panel; tasks are in the panel's order.

    The same episodes always give the same report.
    """

    panel: Panel
    spec: EvalSpec
    episodes: int
    """Episodes asked for per task."""
    tasks: tuple[TaskResult, ...]
    chosen_ks: tuple[int, ...] = ()
    """The k to report; empty: powers of two up to the episodes per task."""
    method: IntervalMethod = "analytic"
    """How intervals are computed."""
    prices: Prices = FREE
    """Of tokens; zeros where they are not known."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What of the file was left out."""
    path: Path | None = field(default=None, compare=False)
    """The file of the episodes."""
    usage: ChatUsage | None = field(default=None, compare=False)
    """What a chat endpoint counted for the whole panel; None of other engines."""

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
        tasks = tuple(result_of(task, found) for task, found in by_task.items())
        return cls(panel=panel, spec=spec, episodes=episodes, tasks=tasks)

    @property
    def ks(self) -> tuple[int, ...]:
        """The k to report."""
        return self.chosen_ks or tuple(2**i for i in range(self.episodes.bit_length()))

    @property
    def lost(self) -> int:
        """Episodes in which every attempt failed in the environment."""
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
    def cost(self) -> Cost:
        """Of the finished episodes; tokens and dollars as a chat endpoint counted them."""
        found = sum((task.cost for task in self.tasks), Cost())
        return found if self.usage is None else found.counted_by(self.usage)

    @property
    def graded(self) -> bool:
        """Whether any score lies between failure and success."""
        return any(0 < score < 1 for task in self.tasks for score in task.scores)

    @property
    def task_types(self) -> tuple[str, ...]:
        """Task types, sorted."""
        return tuple(sorted({task.task_type for task in self.tasks}))

    def only(self, task_type: str) -> Report:
        """The report restricted to one task type."""
        return replace(
            self, tasks=tuple(t for t in self.tasks if t.task_type == task_type), usage=None
        )

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        return grid(self).html()

    def __str__(self) -> str:
        """The table of ``render``."""
        return render(self)

    def with_at_least(self, k: int) -> int:
        """Number of tasks with at least k finished episodes, the ones that pass@k averages over."""
        return sum(task.finished >= k for task in self.tasks)

    def pass_at(self, k: int) -> Interval:
        """Mean over tasks of the chance that at least one of k episodes succeeds."""
        return self.mean(passes(k))

    def pass_hat(self, k: int) -> Interval:
        """Mean over tasks of the chance that all of k episodes succeed."""
        return self.mean(passes_all(k))

    def best_at(self, k: int) -> Interval:
        """Mean over tasks of the expected highest score of k episodes."""
        return self.mean(best(k))

    def score(self) -> Interval:
        """Mean over tasks of the environment's score."""
        return self.mean(SCORE)

    def turns(self) -> Interval:
        """Mean over tasks of the turns per episode."""
        return self.mean(TURNS)

    def values(self, measure: Measure) -> list[float]:
        """A measure of every task that has it."""
        return [value for task in self.tasks if not math.isnan(value := measure(task))]

    def mean(self, measure: Measure) -> Interval:
        """Mean of a measure over the tasks that have it."""
        return mean_of(self.values(measure), measure.support, self.method)

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


def _after(earlier: EpisodeRecord, record: EpisodeRecord) -> EpisodeRecord:
    """The later record of an episode, with the attempts of the earlier one added."""
    return replace(
        record, failed_attempts=(*earlier.failed_attempts, earlier.stop, *record.failed_attempts)
    )
