"""OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from agentgym.programs.dialects import fields
from agentgym.programs.dialogue import answer_message
from agentgym.programs.values import Call, Message, Request, RequestRefused

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def read(body: Mapping[str, Any]) -> Request:
    """A request from its JSON body.

    Raises:
        RequestRefused: The body does not fit.
    """
    if body.get("n") not in (None, 1):
        raise RequestRefused("n: expected 1; send several requests for several completions")
    messages = tuple(
        _message(each, f"messages[{number}]")
        for number, each in enumerate(fields.objects(body.get("messages"), "messages"))
    )
    if not messages:
        raise RequestRefused("messages: expected at least one")
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return Request(
        messages,
        tuple(_tool(each) for each in fields.objects(body.get("tools"), "tools")),
        fields.count(limit, "max_tokens"),
        fields.stops(body.get("stop"), "stop"),
        bool(body.get("stream")),
        str(body.get("model") or "policy"),
    )


def _message(given: Mapping[str, Any], where: str) -> Message:
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise RequestRefused(f"{where}.role: expected one of {', '.join(_ROLES)}")
    message: Message = {"role": role, "content": fields.text_of(given.get("content"), where)}
    if role == "tool":
        message["tool_call_id"] = str(given.get("tool_call_id", given.get("name", "")))
    calls = fields.objects(given.get("tool_calls"), f"{where}.tool_calls")
    if role == "assistant" and calls:
        message["tool_calls"] = [_call(call, f"{where}.tool_calls") for call in calls]
    return message


def _call(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    called = given.get("function")
    if not isinstance(called, Mapping):
        raise RequestRefused(f"{where}: expected calls of functions")
    name, arguments = fields.text(called, "name", where), fields.text(called, "arguments", where)
    return {
        "id": str(given.get("id", "")),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _tool(given: Mapping[str, Any]) -> Mapping[str, Any]:
    about = given.get("function")
    if given.get("type") != "function" or not isinstance(about, Mapping):
        raise RequestRefused(f"tools: expected functions, got type {given.get('type')!r:.40}")
    name = fields.text(about, "name", "tools")
    return fields.function(name, about.get("description"), about.get("parameters"))


def write(call: Call, request: Request, name: str) -> dict[str, Any]:
    """The JSON body of a reply."""
    message = _answer(call)
    choice = {"index": 0, "message": message, "finish_reason": call.reply.finish, "logprobs": None}
    return {**_head(request, name, "chat.completion"), "choices": [choice], "usage": usage(call)}


def events(call: Call, request: Request, name: str) -> Iterator[tuple[str, Any]]:
    """The chunks of a streamed reply; the last one before the end holds the usage."""
    message = _answer(call)
    calls = message.pop("tool_calls", [])
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{key: message[key]} for key in ("reasoning_content", "content") if message.get(key)]
    deltas += [{"tool_calls": [{"index": k, **one}]} for k, one in enumerate(calls)]
    head = _head(request, name, "chat.completion.chunk")
    for delta in deltas:
        yield "", {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    last = {"index": 0, "delta": {}, "finish_reason": call.reply.finish}
    yield "", {**head, "choices": [last]}
    yield "", {**head, "choices": [], "usage": usage(call)}
    yield "", "[DONE]"


def _answer(call: Call) -> Message:
    message = answer_message(call.reply)
    if call.reply.calls:
        message["content"] = message["content"] or None
    if call.reply.thought:
        message["reasoning_content"] = call.reply.thought.strip()
    return message


def _head(request: Request, name: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{name}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def usage(call: Call) -> dict[str, Any]:
    """Tokens of a call."""
    read, written = len(call.prompt), len(call.completion.tokens)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "completion_tokens_details": {"reasoning_tokens": call.thought_tokens},
    }


def error(message: str, status: int, code: str) -> dict[str, Any]:
    """The body of an error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}
