"""How a model writes a call: JSON after Hermes and Qwen, or one tag per tool. Read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from agentgym.errors import ConfigError, MalformedAction
from agentgym.tools.tool import Tool
from agentgym.utils import strict_json
from agentgym.utils.spans import spans

MAX_CHARACTERS = 65_536
"""Longest call in characters; a longer one is not parsed."""


class Call(NamedTuple):
    """One parsed call."""

    name: str
    arguments: Mapping[str, object]
    texts: bool = False
    """All arguments are texts, for any type of parameter."""
    problem: str = ""
    """Why the call is malformed, as the model reads it; empty if it is well formed."""


class CallNotation(Protocol):
    """Reads the calls out of an action, and writes one."""

    def explain(self, tools: Sequence[Tool]) -> str:
        """The instructions for the model: the tools, and how to call them.

        Raises:
            ConfigError: A tool cannot be called in this notation.
        """

    def parse(self, action: str, tools: Sequence[Tool]) -> tuple[Call, ...]:
        """The calls in order; empty if the action has none."""

    def write(self, tool: Tool, arguments: Mapping[str, object]) -> str:
        """The action text of one call; ``parse`` is its inverse."""

    def result(self, text: str) -> str:
        """The result of a tool, as the model reads it."""


@dataclass(frozen=True, slots=True)
class HermesCalls:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, as Hermes and Qwen write it.

    The arguments may also be a string with the object, as OpenAI's API writes them. A closing tag
    inside a JSON string is part of it. Results are written in ``<tool_response>``. Missing,
    unknown or duplicate keys and non-JSON numbers make that call malformed; the other calls are
    still executed.
    """

    def explain(self, tools: Sequence[Tool]) -> str:
        """The schemas, one per line, and the form of a call."""
        schemas = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
        return (
            f"You may call these functions:\n<tools>\n{schemas}\n</tools>\n"
            f"Call one by a JSON object with its name and arguments:\n"
            f'<tool_call>{{"name": "...", "arguments": {{...}}}}</tool_call>'
        )

    def parse(self, action: str, tools: Sequence[Tool]) -> tuple[Call, ...]:
        """Every ``<tool_call>``."""
        return tuple(
            _unclosed("tool_call") if span.end < 0 else _json_call(action[span.start : span.end])
            for span in spans(action, "<tool_call>", "</tool_call>")
        )

    def write(self, tool: Tool, arguments: Mapping[str, object]) -> str:
        """The JSON object between its tags, on one line."""
        text = json.dumps({"name": tool.name, "arguments": arguments}, ensure_ascii=False)
        # `</` occurs inside strings only, where the escaped form means the same.
        return f"<tool_call>{text.replace('</', '<' + chr(92) + '/')}</tool_call>"

    def result(self, text: str) -> str:
        """Between the tags of the same family."""
        return f"<tool_response>\n{text}\n</tool_response>"


@dataclass(frozen=True, slots=True)
class TagCalls:
    """``<search>words</search>``, ``<python>code</python>``: one tag per tool.

    The text between the tags is the tool's first parameter, stripped; the other parameters keep
    their defaults. A tag inside another one is part of its text.

    Source:
        Search-R1 (arXiv:2503.09516, results in ``information``), ARPO (arXiv:2507.19849,
        ``result``).
    """

    results: str = "result"
    """The tag around results."""

    def explain(self, tools: Sequence[Tool]) -> str:
        """A line per tool."""
        lines = []
        for tool in tools:
            first = _first(tool)
            lines.append(
                f"<{tool.name}>{first}</{tool.name}>: {' '.join(tool.description.split())}"
            )
        listed = "\n".join(lines)
        return f"You may call these tools:\n{listed}\nResults come back inside <{self.results}>."

    def parse(self, action: str, tools: Sequence[Tool]) -> tuple[Call, ...]:
        """Every tag that names a tool."""
        firsts = {tool.name: _first(tool) for tool in tools}
        if not firsts:
            return ()
        opening = re.compile(f"<({'|'.join(map(re.escape, firsts))})>")
        return tuple(
            _unclosed(tag)
            if body is None
            else Call(tag, {firsts[tag]: body.strip()}, texts=True, problem=_too_long(body))
            for tag, body in _spans(action, opening)
        )

    def write(self, tool: Tool, arguments: Mapping[str, object]) -> str:
        """The first argument between the tags.

        Raises:
            ConfigError: There are more arguments, which tags cannot carry.
        """
        first = _first(tool)
        if set(arguments) != {first}:
            raise ConfigError(f"<{tool.name}> carries {first!r} alone, got {sorted(arguments)}")
        return f"<{tool.name}>{arguments[first]}</{tool.name}>"

    def result(self, text: str) -> str:
        """Between the tags for results."""
        return f"<{self.results}>\n{text}\n</{self.results}>"


def _spans(text: str, opening: re.Pattern[str]) -> Iterator[tuple[str, str | None]]:
    """Tag and content of every span, left to right; an unclosed one is the last, without content.

    Linear in the text: a lazy pattern over both tags would look for the end from every opening.
    """
    at = 0
    while match := opening.search(text, at):
        tag = match[1]
        end = text.find(f"</{tag}>", match.end())
        if end < 0:
            yield tag, None
            return
        yield tag, text[match.end() : end]
        at = end + len(tag) + 3


def _unclosed(tag: str) -> Call:
    return Call(tag, {}, problem=f"<{tag}> is not closed by </{tag}>.")


def _too_long(body: str) -> str:
    if len(body) <= MAX_CHARACTERS:
        return ""
    return f"The call has {len(body)} characters, expected at most {MAX_CHARACTERS}."


def _first(tool: Tool) -> str:
    """The parameter that a tag carries."""
    names: list[str] = list(tool.parameters.get("properties", ()))
    others = set(tool.parameters.get("required", ())) - set(names[:1])
    if not names or others:
        raise ConfigError(
            f"a tag carries one argument, tool {tool.signature} needs "
            f"{'none' if not names else 'more'}: give defaults, or call tools in JSON"
        )
    return names[0]


def _json_call(body: str) -> Call:
    """One call from its JSON text."""
    problem = _too_long(body)
    if problem:
        return Call("", {}, problem=problem)
    try:
        found = strict_json.read(body)
    except MalformedAction as malformed:
        return Call("", {}, problem=str(malformed))
    if not isinstance(found, dict) or set(found) != {"name", "arguments"}:
        return Call("", {}, problem='A call is {"name": "...", "arguments": {...}}, no more.')
    name, arguments = found["name"], found["arguments"]
    if isinstance(arguments, str):
        # OpenAI's form: the arguments are an object written as a string.
        try:
            arguments = strict_json.read(arguments)
        except MalformedAction:
            arguments = None
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return Call("", {}, problem='"name" must be a string, "arguments" an object.')
    return Call(name, arguments)
