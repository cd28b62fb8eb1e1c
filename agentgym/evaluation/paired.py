"""Two evaluations on one panel, task by task."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.measures import Measure
from agentgym.evaluation.spec import Setting
from agentgym.evaluation.stats.bootstrap import bootstrap_difference, bootstrap_mean
from agentgym.evaluation.stats.intervals import (
    Interval,
    IntervalMethod,
    difference_interval,
    mean_interval,
)

if TYPE_CHECKING:
    from agentgym.evaluation.report import Report


class PairedDifference(NamedTuple):
    """One measure before and after, over the tasks with a value on both sides."""

    before: Interval
    after: Interval
    difference: Interval
    """Paired by task."""
    tasks: int


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


def paired_difference(before: Report, after: Report, measure: Measure) -> PairedDifference:
    """A measure before and after, and its paired difference.

    Raises:
        ConfigError: The reports are on different panels.
    """
    check_panels(before.panel, after.panel)
    old = {result.task: measure(result) for result in before.tasks}
    pairs = [(old.get(new.task, math.nan), measure(new)) for new in after.tasks]
    known = [pair for pair in pairs if not any(map(math.isnan, pair))]
    first, second = [pair[0] for pair in known], [pair[1] for pair in known]
    support, method = measure.support, after.method
    return PairedDifference(
        mean_of(first, support, method),
        mean_of(second, support, method),
        difference_of(first, second, support, method),
        len(known),
    )


def mean_of(
    values: list[float], support: tuple[float, float] | None, method: IntervalMethod
) -> Interval:
    """Mean over tasks with an interval; the same values always give the same."""
    if method == "bootstrap":
        return bootstrap_mean(values, np.random.default_rng(0), support=support)
    return mean_interval(values, support)


def difference_of(
    before: list[float],
    after: list[float],
    support: tuple[float, float] | None,
    method: IntervalMethod,
) -> Interval:
    """Paired mean difference with an interval; the same values always give the same."""
    if method == "bootstrap":
        return bootstrap_difference(before, after, np.random.default_rng(0), support=support)
    return difference_interval(before, after, support)


def setting_changes(one: Report, other: Report) -> list[tuple[str, Setting, Setting]]:
    """Settings of two evaluations that differ, with both values; None where one is absent."""
    names = sorted(one.spec.settings.keys() | other.spec.settings.keys())
    pairs = [(name, one.spec.settings.get(name), other.spec.settings.get(name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]
