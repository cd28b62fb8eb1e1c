"""Paired comparison of two or more evaluations on one panel, with training seeds as a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from agentgym.errors import ConfigError
from agentgym.evaluation.arms import Arm, Flip, align, arm_names, check_episodes, flips
from agentgym.evaluation.compare_text import comparison_grid, flips_grid, sentence
from agentgym.evaluation.measures import Measure, measure_named
from agentgym.evaluation.paired import difference_of, mean_of
from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.intervals import Interval
from agentgym.evaluation.stats.seeds import difference_over_seeds
from agentgym.evaluation.stats.significance import holm, sign_flip_p
from agentgym.evaluation.stats.student import LEVEL
from agentgym.evaluation.tables import Grid
from agentgym.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two arms, compared task by task."""

    first: str
    second: str
    levels: tuple[float, float]
    """Mean of the measure of both."""
    difference: Interval
    """Second minus first, with a 95 % interval, paired by task."""
    p: float
    """Of "there is no difference", adjusted for the number of pairs (Holm): a sign-flip test over
    tasks; with seeds, a t-test over tasks and seeds."""
    seeds: tuple[int, int]
    """Training seeds of both; above 1 on both sides, the interval is over seeds, too."""
    better: tuple[Task, ...]
    """Tasks on which the second has more."""
    worse: tuple[Task, ...]
    """Tasks on which the second has less."""
    flips: tuple[Flip, ...]
    """Tasks that one won and the other lost."""

    @property
    def real(self) -> bool:
        """Whether the difference is significant at 5 %."""
        return self.p < 1 - LEVEL

    @property
    def over_seeds(self) -> bool:
        """Whether the interval is over training seeds and tasks."""
        return min(self.seeds) > 1

    @property
    def verdict(self) -> str:
        """Whether the difference is real, in few words."""
        if not self.real:
            return "no significant difference"
        return f"{self.second if self.difference.value > 0 else self.first} is better"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every pair of some arms; prints as sentences and tables, in notebooks too."""

    arms: tuple[Arm, ...]
    pairs: tuple[Pair, ...]
    measure: Measure
    note: str = ""
    """What was left out because the panels differ."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms."""
        return tuple(arm.name for arm in self.arms)

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of all arms and seeds."""
        return tuple(report for arm in self.arms for report in arm.reports)

    @property
    def grid(self) -> Grid:
        """The table of pairs."""
        return comparison_grid(self)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found about each pair, in plain words."""
        return tuple(sentence(pair, self.measure, len(self.pairs)) for pair in self.pairs)

    def __str__(self) -> str:
        """Sentences, the table, and the tasks that flipped, as plain text."""
        tables = [self.grid, *(flips_grid(pair) for pair in self.pairs if pair.flips)]
        return "\n".join([*self.sentences, "", *(table.text() for table in tables)])

    def _repr_html_(self) -> str:
        """The table, for notebooks."""
        return self.grid.html()


def compare_reports(
    evaluations: Sequence[Report | Sequence[Report]],
    names: Sequence[str] = (),
    *,
    measure: str = "pass@1",
) -> Comparison:
    """Compare evaluations of one panel pair by pair.

    Args:
        evaluations: Two or more; a sequence of reports is one arm with several training seeds.
        names: What to call them; unset: their labels, numbered where two are equal.
        measure: What is compared: pass@K, pass^K, best@K, worst@K, score or turns.

    Raises:
        ConfigError: There are fewer than two, they have no two tasks in common, or the measure
            needs more episodes than were played.
    """
    if len(evaluations) < 2:
        raise ConfigError(f"a comparison needs at least 2 evaluations, got {len(evaluations)}")
    groups = [(each,) if isinstance(each, Report) else tuple(each) for each in evaluations]
    labels = arm_names(groups, names)
    wanted = measure_named(measure)
    arms, note = align([Arm(*pair) for pair in zip(labels, groups, strict=True)])
    check_episodes(arms, wanted)
    found = [_pair(*pair, wanted) for pair in combinations(arms, 2)]
    adjusted = holm([pair.p for pair in found])
    pairs = tuple(replace(pair, p=p) for pair, p in zip(found, adjusted, strict=True))
    return Comparison(arms, pairs, wanted, note)


def _pair(first: Arm, second: Arm, measure: Measure) -> Pair:
    before, after = first.values(measure), second.values(measure)
    tasks = [result.task for result in first.first.tasks]
    known = ~np.isnan(np.concatenate([before, after])).any(axis=0)
    before, after = before[:, known], after[:, known]
    old, new = before.mean(axis=0), after.mean(axis=0)
    change = new - old
    kept = [task for task, has in zip(tasks, known.tolist(), strict=True) if has]
    seeds = len(before), len(after)
    method = first.first.method
    if min(seeds) > 1 and len(kept) > 1:
        difference, p, _ = difference_over_seeds(before, after)
    else:
        difference = difference_of(list(old), list(new), measure.support, method)
        p = sign_flip_p(change, np.random.default_rng(0))
    levels = [mean_of(list(side), measure.support, method).value for side in (old, new)]
    return Pair(
        first=first.name,
        second=second.name,
        levels=(levels[0], levels[1]),
        difference=difference,
        p=p,
        seeds=seeds,
        better=tuple(task for task, more in zip(kept, change, strict=True) if more > 0),
        worse=tuple(task for task, more in zip(kept, change, strict=True) if more < 0),
        flips=flips(first, second),
    )
