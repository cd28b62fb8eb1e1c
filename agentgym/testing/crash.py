"""Exceptions that an environment raised, and where in its code."""

from __future__ import annotations

from agentgym.errors import CacheError, MissingExtra
from agentgym.utils.places import place_of

NOT_THE_ENV = (MissingExtra, CacheError)
"""Errors that show that a machine lacks something: they end the check and are no violation."""


class Crash(AssertionError):
    """The environment raised; the place in its code identifies repetitions of the error."""

    def __init__(self, message: str, problem: BaseException) -> None:
        place = place_of(problem)
        self.place = place or str(problem)
        super().__init__(f"{message} ({place})" if place else message)
