"""Digests of conversations: whether a request extends one that was answered before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agentgym.programs.values import Message, Request
from agentgym.rollout.tool_calls import ToolCall


class Marks:
    """The digests of one agent's requests.

    A request mostly holds the one before it and two messages more, so the digests of the messages
    that are as they were are kept.
    """

    def __init__(self) -> None:
        self._request = Request(())
        self._marks = [b""]

    def of(self, request: Request) -> list[bytes]:
        """A digest of the tools, then one of every beginning of the messages."""
        start = self._marks[0]
        if request.tools is not self._request.tools or not start:
            start = _digest(b"", [*map(dict, request.tools)])
        marks = [start]
        if start == self._marks[0]:
            marks = self._marks[: 1 + _alike(request.messages, self._request.messages)]
        for message in request.messages[len(marks) - 1 :]:
            marks.append(_digest(marks[-1], _row(message)))
        self._request, self._marks = request, marks
        return marks


def _alike(one: tuple[Message, ...], other: tuple[Message, ...]) -> int:
    """How many leading messages are the same."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _row(message: Message) -> list[Any]:
    """What of a message counts."""
    calls = [[c.name, c.arguments] for c in map(tool_call, message.get("tool_calls", ()))]
    return [message["role"], message["content"].strip(), calls, message.get("tool_call_id")]


def _digest(before: bytes, value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False).encode(errors="replace")
    return hashlib.blake2b(before + text, digest_size=16).digest()


def tool_call(call: Mapping[str, Any]) -> ToolCall:
    """A call of a message; arguments that are no JSON object stay a text."""
    name, text = call["function"]["name"], call["function"]["arguments"]
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    return ToolCall(name, arguments if isinstance(arguments, dict) else {"arguments": text})
