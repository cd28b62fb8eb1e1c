"""What happened on one task, and measures of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.stats.passes import pass_at_k, pass_hat_k
from agentgym.types import Ending, Task


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


def result_of(task: Task, records: list[EpisodeRecord]) -> TaskResult:
    """Summarise the episodes of one task."""
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


Measure = Callable[[TaskResult], float]
"""A number per task; NaN where the task has none."""


def passes(k: int) -> Measure:
    """pass@k of one task; NaN where fewer than k episodes finished."""
    return lambda task: pass_at_k(task.finished, task.won, k) if task.finished >= k else math.nan


def passes_all(k: int) -> Measure:
    """pass^k of one task; NaN where fewer than k episodes finished."""
    return lambda task: pass_hat_k(task.finished, task.won, k) if task.finished >= k else math.nan
