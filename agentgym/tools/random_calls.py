"""Tool calls at random: the floor that a policy in an environment with tools has to exceed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentgym.tools.env import ToolEnv

MESSAGE = "Done."
"""The action without a call, where one is allowed: it is drawn as often as each tool."""
_WORD = re.compile(r"[^\s<>(){}\[\]\"',;]+")
_BELOW = 10
"""Numbers are drawn below it, where a schema sets no bounds."""
_DEEPEST = 4
"""Levels of objects and lists that are filled."""


def random_call(env: ToolEnv, observation: str, goal: str, rng: np.random.Generator) -> str:
    """An action that calls a tool drawn evenly, with arguments of the right types.

    Required arguments are given, or the first where none is required. Values are drawn evenly from
    what their schema lists, numbers from its bounds or from 0 to 9, and texts from the words of the
    observation and of the goal. Where an action may also be a message, one is sent as often as
    each tool is called.

    Args:
        env: In some state of an episode.
        observation: The last answer of the environment.
        goal: The task, of which the instructions about tools are left out.
        rng: The source of chance.

    Raises:
        ValueError: The environment offers no tools.
    """
    if not env.tools:
        raise ValueError(f"{type(env).__name__} offers no tools in task {env.task_id!r}")
    number = int(rng.integers(len(env.tools) + (not env.calls_only)))
    if number == len(env.tools):
        return MESSAGE
    one = env.tools[number]
    read = f"{observation}\n{goal.replace(env.instructions, ' ')}"
    words = list(dict.fromkeys(_WORD.findall(read))) or [MESSAGE]
    properties: Mapping[str, Any] = one.parameters.get("properties", {})
    names = list(one.parameters.get("required", ())) or list(properties)[:1]
    drawn = _Values(one.parameters.get("$defs", {}), words, rng)
    arguments = {name: drawn.value(properties.get(name, {})) for name in names}
    return env.notation.write(one, arguments)


class _Values(NamedTuple):
    """Draws values that fit JSON schemas in their types, alternatives and bounds."""

    definitions: Mapping[str, Any]
    """Schemas that others refer to, by name."""
    words: Sequence[str]
    rng: np.random.Generator

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> object:
        """One value."""
        if name := schema.get("$ref"):
            return self.value(self.definitions[name.rpartition("/")[2]], depth)
        if listed := schema.get("enum"):
            return self._one_of(listed)
        if options := schema.get("anyOf"):
            return self.value(self._one_of(options), depth)
        kind, full = schema.get("type", "string"), depth == _DEEPEST
        if kind in ("integer", "number", "float"):
            return self._number(schema)
        if kind == "boolean":
            return bool(self.rng.integers(2))
        if kind == "null":
            return None
        if kind in ("array", "tuple"):
            return [] if full else [self.value(schema.get("items", {}), depth + 1)]
        if kind in ("object", "dict"):
            inner = {} if full else schema.get("properties", {})
            return {name: self.value(inner[name], depth + 1) for name in inner}
        return self._one_of(self.words)

    def _one_of(self, values: Sequence[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def _number(self, schema: Mapping[str, Any]) -> int:
        low = schema.get("minimum", 0)
        high = max(low, schema.get("maximum", low + _BELOW - 1))
        return int(self.rng.integers(int(low), int(high) + 1))
