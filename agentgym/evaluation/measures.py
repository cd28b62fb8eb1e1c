"""What is measured of a task: pass@k, pass^k, scores, turns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from agentgym.errors import ConfigError, did_you_mean
from agentgym.evaluation.stats.passes import best_of_k, pass_at_k, pass_hat_k, worst_of_k
from agentgym.evaluation.task_result import TaskResult

UNIT = (0.0, 1.0)
"""Least and greatest value of shares and scores."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number per task."""

    name: str
    of: Callable[[TaskResult], float]
    """NaN where a task has too few finished episodes."""
    support: tuple[float, float] | None = UNIT
    """Least and greatest possible value; None: unbounded."""
    episodes: int = 1
    """Finished episodes that a task needs."""

    def __call__(self, task: TaskResult) -> float:
        """The number of a task."""
        return self.of(task) if task.finished >= self.episodes else math.nan


def passes(k: int) -> Measure:
    """pass@k: the chance that at least one of k episodes succeeds; pass@1 of n is avg@n."""
    return Measure(f"pass@{k}", lambda task: pass_at_k(task.finished, task.won, k), episodes=k)


def passes_all(k: int) -> Measure:
    """pass^k: the chance that all of k episodes succeed."""
    return Measure(f"pass^{k}", lambda task: pass_hat_k(task.finished, task.won, k), episodes=k)


def best(k: int) -> Measure:
    """best@k: the expected highest score of k episodes."""
    return Measure(f"best@{k}", lambda task: best_of_k(task.scores, k), episodes=k)


def worst(k: int) -> Measure:
    """worst@k: the expected lowest score of k episodes."""
    return Measure(f"worst@{k}", lambda task: worst_of_k(task.scores, k), episodes=k)


SCORE = Measure("score", lambda task: task.score)
"""The environment's score; its mean over n episodes is avg@n of the score."""
TURNS = Measure("turns", lambda task: task.turns, None)
"""Turns per episode."""

_BY_K = {"pass@": passes, "pass^": passes_all, "best@": best, "worst@": worst}
_PLAIN = {"score": SCORE, "turns": TURNS}


def measure_named(name: str) -> Measure:
    """A measure by name.

    Raises:
        ConfigError: There is none of that name.

    Examples:
        >>> measure_named("pass@4").episodes, measure_named("turns").support
        (4, None)
    """
    found = re.fullmatch(r"(pass@|pass\^|best@|worst@)([1-9]\d*)", name)
    if found:
        return _BY_K[found[1]](int(found[2]))
    if name not in _PLAIN:
        known = ["pass@1", "pass^4", "best@4", "worst@4", *_PLAIN]
        raise ConfigError(
            f"no measure {name!r}.{did_you_mean(name, known)} Measures: pass@K, pass^K, best@K, "
            f"worst@K, score, turns"
        )
    return _PLAIN[name]
