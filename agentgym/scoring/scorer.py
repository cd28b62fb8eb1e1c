"""What a scorer is, and scorers that are Python functions."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentgym.env.by_class import load_object
from agentgym.errors import AgentGymError, ConfigError
from agentgym.evaluation.records import EpisodeRecord

PASS_MARK = 0.5
"""Least score of a success, where the scorer does not define one."""


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's judgement of one episode."""

    value: float
    """In [0, 1], like the score of an environment."""
    won: bool | None = None
    """Whether the task is solved; None: the value is at least the pass mark."""
    criteria: Mapping[str, float] = field(default_factory=dict)
    """Score of each criterion, in [0, 1]."""
    reason: str = ""
    """Why."""

    @property
    def success(self) -> bool:
        """Whether the task is solved."""
        return self.value >= PASS_MARK if self.won is None else self.won


class Unscored(AgentGymError):
    """A scorer has no usable score for an episode; the message gives the reason."""


class Scorer(Protocol):
    """Scores finished episodes."""

    @property
    def name(self) -> str:
        """What the records call it."""

    async def score(self, episode: EpisodeRecord) -> Score:
        """The score of an episode.

        Raises:
            Unscored: There is none; the episode counts neither as failure nor as success.
        """


@dataclass(frozen=True)
class FunctionScorer:
    """A Python function of an episode: it returns a number, a truth value or a ``Score``.

    It runs in a thread, unless it is a coroutine function.
    """

    name: str
    function: Callable[[EpisodeRecord], Any]

    async def score(self, episode: EpisodeRecord) -> Score:
        """Call the function.

        Raises:
            Unscored: It returned None or NaN.
            ConfigError: It failed, or returned something else.
        """
        try:
            if inspect.iscoroutinefunction(self.function):
                found = await self.function(episode)
            else:
                found = await asyncio.to_thread(self.function, episode)
        except AgentGymError:
            raise
        except Exception as problem:
            reason = " ".join(str(problem).split())[:200]
            raise ConfigError(
                f"{self.name} raised {type(problem).__name__}: {reason} (episode {episode.sample} "
                f"of task {episode.task!r})"
            ) from problem
        return as_score(found, self.name)


def as_score(found: Any, name: str) -> Score:
    """The score in what a function returned.

    Raises:
        Unscored: None or NaN.
        ConfigError: Something else than a number in [0, 1], a truth value or a ``Score``.
    """
    if isinstance(found, Score):
        return Score(as_score(found.value, name).value, found.won, found.criteria, found.reason)
    if found is None or (isinstance(found, float) and math.isnan(found)):
        raise Unscored(f"{name} returned {found}")
    if isinstance(found, bool):
        return Score(float(found), found)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} returned {found!r}, expected a number from 0 to 1")
    return Score(value)


def load_scorer(name: str) -> FunctionScorer:
    """The function of ``file.py:function`` or ``module:function`` as a scorer.

    Raises:
        ConfigError: There is no such function.
    """
    found = load_object(name)
    if not callable(found):
        raise ConfigError(f"{name} is a {type(found).__name__}, expected a function of an episode")
    return FunctionScorer(name, found)
