"""Tool calls of a model: its notation is detected, its calls are read and get typed arguments.

A notation is recognised by a round trip: the chat template writes a known call, and the notation
that reads the same call back is the model's. A tokenizer with a ``response_template`` is read by
transformers' own parser instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentgym.errors import ConfigError, MalformedAction, did_you_mean
from agentgym.rollout.notations import HERMES, NOTATIONS, Notation, Parsed, named_call
from agentgym.types import ToolCall

__all__ = [
    "HERMES",
    "NOTATIONS",
    "Notation",
    "Parsed",
    "ToolCall",
    "detect",
    "from_tokenizer",
    "hermes_text",
    "notation",
    "read_calls",
    "results_of",
    "typed",
]

LONGEST = 65_536
"""Characters of one completion with calls; more is refused unread."""


def from_tokenizer(tokenizer: Any) -> Notation:
    """The notation that the ``response_template`` of a tokenizer describes (transformers 5)."""

    def read(text: str) -> Parsed:
        try:
            message = tokenizer.parse_response(text, prefix="")
        except Exception as problem:  # Its errors have no common type.
            reason = " ".join(str(problem).split())[:120]
            raise MalformedAction(f"The call cannot be read: {reason}") from None
        found = (each.get("function", each) for each in message.get("tool_calls") or [])
        calls = tuple(named_call(each, "arguments") for each in found)
        return Parsed(str(message.get("content") or "").strip(), calls)

    return Notation("response-template", read, "the one that the chat template shows")


def typed(call: ToolCall, tools: Sequence[Mapping[str, Any]]) -> ToolCall:
    """The call with text arguments converted to the types of the schema of its tool."""
    for each in tools:
        function = each.get("function", each)
        if function.get("name") == call.name:
            properties = function.get("parameters", {}).get("properties", {})
            converted = {
                key: _converted(value, properties.get(key, {}).get("type"))
                for key, value in call.arguments.items()
            }
            return ToolCall(call.name, converted)
    return call


def _converted(value: object, kind: object) -> object:
    if not isinstance(value, str) or kind in (None, "string"):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = {"true": True, "false": False, "none": None}.get(value.strip().lower(), value)
    return found


def notation(name: str) -> Notation:
    """A notation by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in NOTATIONS:
        raise ConfigError(
            f"there is no tool notation {name!r}.{did_you_mean(name, NOTATIONS)} "
            f"Notations: {', '.join(NOTATIONS)}"
        )
    return NOTATIONS[name]


def detect(written: str, call: ToolCall) -> Notation | None:
    """The notation in which a chat template wrote ``call``; None if none reads it back."""
    for each in NOTATIONS.values():
        try:
            parsed = each.read(written)
        except MalformedAction:
            continue
        if parsed.calls == (call,):
            return each
    return None


def read_calls(text: str, expected: Notation) -> Parsed:
    """The calls of an answer.

    Raises:
        MalformedAction: There is none, one is malformed, or in the notation of another family.
    """
    if len(text) > LONGEST:
        raise MalformedAction(f"The answer has {len(text)} characters, expected {LONGEST} at most.")
    try:
        found = expected.read(text)
    except MalformedAction:
        _refuse_others(text, expected)
        raise
    if not found.calls:
        _refuse_others(text, expected)
        raise MalformedAction(
            f"Expected a tool call, got none. A call looks like {expected.example}"
        )
    return found


def _refuse_others(text: str, expected: Notation) -> None:
    for name in _other_notations(text, expected):
        raise MalformedAction(
            f"The call is in the notation {name!r}, expected {expected.name!r}: "
            f"write {expected.example}"
        ) from None


def _other_notations(text: str, expected: Notation) -> Iterator[str]:
    for each in NOTATIONS.values():
        if each is not expected:
            try:
                if each.read(text).calls:
                    yield each.name
            except MalformedAction:
                continue


def hermes_text(calls: Sequence[ToolCall]) -> str:
    """Calls as environments read them: one ``<tool_call>`` with a JSON object per line."""
    lines = (
        json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
        for call in calls
    )
    return "\n".join(
        f"<tool_call>{line.replace('</', '<' + chr(92) + '/')}</tool_call>" for line in lines
    )


_RESULT = re.compile(r"<tool_response>\n(.*?)\n</tool_response>", re.DOTALL)


def results_of(observation: str, count: int) -> list[str]:
    """The observation as one result per call: role ``tool`` has no need of tags around it."""
    found = _RESULT.findall(observation)
    if len(found) == count and not _RESULT.sub("", observation).strip():
        return found
    return [observation]
