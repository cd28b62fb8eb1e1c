"""How many tasks and episodes an evaluation needs, before it is played."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from agentgym.errors import ConfigError
from agentgym.evaluation.stats.student import student_t

MOST_TASKS = 10_000_000
"""More is no plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """How success is spread over tasks and episodes; chances of success differ by task."""

    base: float = 0.5
    """Mean chance of success, in (0, 1); 0.5 needs the most tasks."""
    icc: float = 0.4
    """Intraclass correlation: the share of the variance of single episodes that lies between tasks.
    0: all tasks are equally hard; 1: every task is always won or always lost."""
    pairing: float = 0.7
    """Correlation, over tasks, of the chances of the two that are compared; 1: what is hard for one
    is as hard for the other."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0 < self.base < 1:
            raise ConfigError(
                f"base is {self.base:g}, expected a share between 0 and 1, without them"
            )
        for name, value in (("icc", self.icc), ("pairing", self.pairing)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value:g}, expected 0 to 1")

    def task_variance(self, episodes: int, *, paired: bool = False) -> float:
        """Variance, over tasks, of the share of won episodes; paired: of the difference of two.

        Source:
            Kish 1965, section 5.4 (design effect ``1 + (n - 1) * icc``); Miller 2024
            (arXiv:2411.00640), section 5, with his omega squared as ``2 * spread * icc *
            (1 - pairing)`` and his sigma squared as ``spread * (1 - icc)``.
        """
        spread = self.base * (1 - self.base)
        within = spread * (1 - self.icc) / episodes
        between = spread * self.icc
        return 2 * (between * (1 - self.pairing) + within) if paired else between + within


def tasks_needed(variance: float, margin: float, *, power: float | None = None) -> int:
    """The smallest number of tasks for a 95 % interval of at most ``± margin``.

    Args:
        variance: Of one task's value, see ``Difficulty.task_variance``.
        margin: Half of the interval's length; with ``power``, the true difference to be found.
        power: Chance that a true difference of ``margin`` is found significant at 5 %.

    Raises:
        ConfigError: It would take more than ten million, or a value is impossible.

    Examples:
        >>> tasks_needed(0.25, 0.1)
        99

    Source:
        Miller 2024 (arXiv:2411.00640), equation 9, with Student's t in place of z.
    """
    if not 0 < margin < 1:
        raise ConfigError(f"margin is {margin:g}, expected a share between 0 and 1")
    if power is not None and not 0.05 < power < 1:
        raise ConfigError(f"power is {power:g}, expected above 0.05 and below 1")
    if _margin(variance, MOST_TASKS, power) > margin:
        raise ConfigError(
            f"no {MOST_TASKS:,} tasks are enough for a margin of {100 * margin:g} points"
        )
    low, high = 1, MOST_TASKS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _margin(variance, middle, power) <= margin else (middle, high)
    return high


def margin_of(variance: float, tasks: int, *, power: float | None = None) -> float:
    """The margin that a number of tasks reaches, at least 2: the reverse of ``tasks_needed``.

    Examples:
        >>> round(margin_of(0.25, 99), 3)
        0.1
    """
    if tasks < 2:
        raise ConfigError(f"tasks is {tasks}, expected at least 2")
    return _margin(variance, tasks, power)


def _margin(variance: float, tasks: int, power: float | None) -> float:
    reach = student_t(tasks - 1)
    if power is not None:
        reach += NormalDist().inv_cdf(power)
    return reach * math.sqrt(variance / tasks)


def observed_difficulty(wins: npt.ArrayLike, episodes: int) -> Difficulty:
    """The difficulty that played episodes show.

    Args:
        wins: Won episodes of each task, (M,), at least two tasks.
        episodes: Episodes per task, at least two.

    Raises:
        ConfigError: There are fewer, or all episodes ended alike.

    Examples:
        >>> found = observed_difficulty([0, 4, 4, 0], 4)
        >>> found.base, found.icc
        (0.5, 1.0)

    Source:
        The analysis-of-variance estimate of the intraclass correlation, as in Ridout, Demétrio and
        Firth 1999 (Biometrics 55:1), with the total variance as ``base * (1 - base)``.
    """
    shares = np.asarray(wins, dtype=np.float64) / episodes
    if shares.size < 2 or episodes < 2:
        raise ConfigError(
            f"got {shares.size} tasks with {episodes} episodes each, expected at least 2 of both"
        )
    base = float(shares.mean())
    if not 0 < base < 1:
        raise ConfigError("all episodes ended alike, which shows nothing of how tasks differ")
    within = float((shares * (1 - shares)).mean()) * episodes / (episodes - 1)
    between = float(shares.var(ddof=1)) - within / episodes
    return Difficulty(base=base, icc=min(1.0, max(0.0, between / (base * (1 - base)))))


def observed_pairing(first: npt.ArrayLike, second: npt.ArrayLike, episodes: int) -> float:
    """Correlation of the chances of two on the same tasks, without the noise of the episodes.

    Args:
        first: Won episodes of each task, (M,).
        second: The same of the other.
        episodes: Episodes per task.
    """
    one, two = observed_difficulty(first, episodes), observed_difficulty(second, episodes)
    shares = [np.asarray(wins, dtype=np.float64) / episodes for wins in (first, second)]
    shared = float(np.cov(shares[0], shares[1])[0, 1])
    spread = math.prod(math.sqrt(each.icc * each.base * (1 - each.base)) for each in (one, two))
    return min(1.0, max(0.0, shared / spread)) if spread else 0.0
