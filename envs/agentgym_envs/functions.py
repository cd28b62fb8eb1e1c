"""Environments of published tool benchmarks: the functions of a task, run where they are."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, Self

from agentgym.env.base import Outcome
from agentgym.errors import EnvError, MalformedAction
from agentgym.tools import Call, CallLimits, HermesCalls, Tool, ToolEnv, cut_characters

MAX_CALLS = 1_000
"""Calls of an episode."""
PER_TURN = 16
"""Calls of one action."""
_LARGEST = 10**15
"""Numbers beyond it are refused: arithmetic on larger ones takes arbitrary time."""


class Result(NamedTuple):
    """What a function answered."""

    text: str
    failed: bool = False
    """The function raised, or refused its arguments."""


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a benchmark as a model reads it.

    Compared by identity, so that what is derived from lists of them can be cached.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    """JSON schema of an object."""

    def tool(self) -> Tool:
        """For ``ToolEnv``; the environment itself runs it and checks its arguments."""
        return Tool(self.name, self.description, self.parameters, _unchecked, _not_called)


class _Offer(NamedTuple):
    """The functions of a task in the forms in which they are needed."""

    tools: tuple[Tool, ...]
    instructions: str
    schemas: str
    """As JSON."""


_NOTATION = HermesCalls()


@lru_cache(maxsize=256)
def _offer(functions: tuple[Function, ...]) -> _Offer:
    tools = tuple(each.tool() for each in functions)
    return _Offer(tools, _NOTATION.explain(tools), json.dumps([each.schema for each in tools]))


class FunctionEnv(ToolEnv):
    """An environment whose functions depend on the task and run in this process, without threads.

    A subclass offers the functions in ``open`` and implements ``call``, ``say``, ``tasks`` and
    ``about``. An action without a call is a message.
    """

    calls_only = False

    def __init__(self, *, result_characters: int = 16_000, **kwargs: Any) -> None:
        """Make the environment.

        Args:
            result_characters: Longest result; of a longer one the middle is left out.
            **kwargs: See ``TextEnv``.
        """
        limits = CallLimits(
            calls=MAX_CALLS, per_turn=PER_TURN, cut=cut_characters(result_characters)
        )
        super().__init__(tools=(), notation=_NOTATION, limits=limits, **kwargs)
        self._offer = _offer(())

    @abstractmethod
    def call(self, name: str, arguments: Mapping[str, Any]) -> Result | Outcome:
        """Run a function that is offered. Arguments are JSON values, of any type."""

    @abstractmethod
    def say(self, message: str) -> Outcome:
        """A message of the agent."""

    @abstractmethod
    def about(self) -> str:
        """The manual, without how calls are written."""

    def manual(self) -> str:
        """What it is, and how calls are written; the functions of a task are in its goal."""
        example = '<tool_call>{"name": "function", "arguments": {"parameter": "value"}}</tool_call>'
        return (
            f"{self.about()}\nA call is a JSON object with the name of a function and its "
            f"arguments, as in `{example}`. An action may hold up to {PER_TURN} calls; each is "
            f"answered with its result. The functions, with their parameters, are listed with the "
            f"task."
        )

    def offer(self, functions: Iterable[Function]) -> None:
        """Set the functions of the task."""
        self._offer = _offer(tuple(functions))
        self.tools, self.instructions = self._offer.tools, self._offer.instructions

    def schemas(self) -> list[dict[str, Any]]:
        """Those of the task."""
        return json.loads(self._offer.schemas)  # type: ignore[no-any-return]

    def act_without_call(self, action: str) -> Outcome:
        """A message."""
        return self.say(action.strip())

    def fork(self) -> Self:
        """Functions are described by values and shared; a subclass copies its state."""
        return self.shallow_copy()

    def written(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The action of one call."""
        return _NOTATION.write(Function(name, "", {}).tool(), arguments)

    def _execute(self, call: Call, before: Outcome) -> Outcome:
        """Execute one call; the observation is not yet wrapped."""
        stay = before._replace(reward=0.0)
        try:
            one = self._find_tool(call)
            if len(self.called) >= self.limits.calls:
                raise MalformedAction(f"All {self.limits.calls} calls of the episode are used.")
            check_numbers(call.arguments)
        except MalformedAction as refusal:
            self.well_formed = False
            return stay._replace(observation=self.limits.cut(str(refusal)), valid=False)
        self.called = (*self.called, one.name)
        found = self.call(one.name, call.arguments)
        if isinstance(found, Outcome):
            return found._replace(observation=self.limits.cut(found.observation))
        return stay._replace(observation=self.limits.cut(found.text), valid=not found.failed)


def check_numbers(value: object) -> None:
    """Refuse numbers on which arithmetic takes arbitrary time.

    Raises:
        MalformedAction: There is one.
    """
    if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
        raise MalformedAction(f"A number is out of range, expected -{_LARGEST:,} to {_LARGEST:,}.")
    for each in (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    ):
        check_numbers(each)


def arguments_of(schema: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Why arguments do not fit a schema, by their names alone; empty if they fit."""
    known: Sequence[str] = tuple(schema.get("properties", ()))
    unknown = [name for name in given if name not in known]
    lacking = [name for name in schema.get("required", ()) if name not in given]
    if unknown:
        return f"unknown parameter {unknown[0][:80]!r}, expected {', '.join(known) or 'none'}"
    return f"parameter {lacking[0]!r} is missing" if lacking else ""


def _unchecked(given: Mapping[str, object], texts: bool) -> dict[str, Any]:
    return dict(given)


def _not_called(**_: object) -> NoReturn:
    raise EnvError("a function of a benchmark is run by its environment")
