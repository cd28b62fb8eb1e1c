"""What happened on one task."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from agentgym.evaluation.cost import Cost
from agentgym.evaluation.records import EpisodeRecord
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
    """Episodes in which every attempt failed in the environment; they count in no other field."""
    scores: tuple[float, ...]
    """Of the finished episodes, in [0, 1], by sample."""
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
    cost: Cost = field(default_factory=Cost, compare=False)
    """Of the finished episodes."""

    @property
    def score(self) -> float:
        """Mean over finished episodes, in [0, 1]; NaN when there is none."""
        return sum(self.scores) / len(self.scores) if self.scores else math.nan


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
        scores=tuple(record.score for record in done),
        turns=len(turns) / len(done) if done else math.nan,
        actions=len(turns),
        valid=sum(turn.valid for turn in turns),
        endings=Counter(Ending.of(record.stop, record.won) for record in done),
        failed_attempts=Counter(Ending.of(stop, False) for stop in failed_attempts),
        cost=sum(map(Cost.of, done), Cost()),
    )
