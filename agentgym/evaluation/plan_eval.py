"""How many tasks and episodes an evaluation needs, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentgym.errors import ConfigError
from agentgym.evaluation.report import Report
from agentgym.evaluation.stats.planning import (
    Difficulty,
    margin_of,
    observed_difficulty,
    observed_pairing,
    tasks_needed,
)
from agentgym.evaluation.tables import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an evaluation is to show."""

    margin: float
    """Half of the interval's length, as a share; with ``power``, the difference to be found."""
    episodes: tuple[int, ...]
    """Episodes per task to consider."""
    tasks: int | None = None
    """Instead of a margin: what this number of tasks reaches."""
    paired: bool = False
    """A difference of two on one panel."""
    power: float | None = None
    """Chance that a difference of the margin is found."""
    given: Mapping[str, float] = field(default_factory=dict)
    """Fields of ``Difficulty`` that are known."""


def plan_grid(wish: Wish, like: Sequence[Report] = ()) -> Grid:
    """A row per number of episodes: tasks and episodes in all, or the margin that is reached.

    Args:
        wish: What is asked.
        like: One or two evaluations of such tasks, from which the difficulty is taken.

    Raises:
        ConfigError: A value is impossible, or the evaluations are not enough to tell.
    """
    if not wish.episodes or min(wish.episodes) < 1:
        raise ConfigError("give one or more episodes per task with `--n`, each at least 1")
    difficulty = replace(difficulty_of(like), **wish.given)
    rows = []
    for count in wish.episodes:
        variance = difficulty.task_variance(count, paired=wish.paired)
        if wish.tasks is None:
            tasks = tasks_needed(variance, wish.margin, power=wish.power)
            reached = wish.margin
        else:
            tasks, reached = wish.tasks, margin_of(variance, wish.tasks, power=wish.power)
        sides = 2 if wish.paired else 1
        rows.append(
            (str(count), f"{tasks:,}", f"{sides * tasks * count:,}", f"{100 * reached:.1f}")
        )
    return Grid(
        title=_title(wish),
        columns=("episodes per task", "tasks", "episodes in all", "points"),
        rows=tuple(rows),
        notes=_notes(wish, difficulty),
    )


def difficulty_of(like: Sequence[Report]) -> Difficulty:
    """The difficulty that evaluations show; the defaults without any.

    Raises:
        ConfigError: An evaluation is not enough to tell, or two are on different panels.
    """
    if not like:
        return Difficulty()
    if len(like) > 2:
        raise ConfigError(f"got {len(like)} evaluations to learn from, expected one or two")
    episodes = min(task.finished for report in like for task in report.tasks)
    wins = [[round(t.won / t.finished * episodes) for t in r.tasks] for r in like if episodes]
    if not wins:
        raise ConfigError("an evaluation to learn from has tasks without a finished episode")
    found = observed_difficulty(wins[0], episodes)
    if len(like) == 1:
        return found
    if [t.task for t in like[0].tasks] != [t.task for t in like[1].tasks]:
        raise ConfigError("the two evaluations to learn from are on different panels")
    return replace(found, pairing=observed_pairing(wins[0], wins[1], episodes))


def _title(wish: Wish) -> str:
    what = "a difference of two on one panel" if wish.paired else "one success rate"
    if wish.tasks is not None:
        return f"What {wish.tasks:,} tasks show of {what}"
    if wish.power is not None:
        return f"To find {what} of {100 * wish.margin:g} points with chance {wish.power:g}"
    return f"For {what}, known to +-{100 * wish.margin:g} points"


def _notes(wish: Wish, difficulty: Difficulty) -> tuple[str, ...]:
    pairing = f", pairing {difficulty.pairing:.2f}" if wish.paired else ""
    both = " Episodes in all: of both sides." if wish.paired else ""
    points = (
        "Points: the difference that is found with that chance."
        if wish.power is not None
        else "Points: half of the length of the 95 % interval."
    )
    return (
        f"Assumed: base {difficulty.base:.2f}, icc {difficulty.icc:.2f}{pairing}; "
        f"`--like FILE` takes them from an evaluation.",
        points + both,
    )
