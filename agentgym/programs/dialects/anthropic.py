"""Anthropic's messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agentgym.programs.dialects import fields
from agentgym.programs.values import Call, Message, Request, RequestRefused

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def read(body: Mapping[str, Any]) -> Request:
    """A request from its JSON body.

    Raises:
        RequestRefused: The body does not fit.
    """
    messages: list[Message] = []
    if system := fields.text_of(body.get("system"), "system"):
        messages.append({"role": "system", "content": system})
    for number, each in enumerate(fields.objects(body.get("messages"), "messages")):
        messages += _split(each, f"messages[{number}]")
    if not any(message["role"] != "system" for message in messages):
        raise RequestRefused("messages: expected at least one")
    tools = (
        fields.function(
            fields.text(each, "name", "tools"), each.get("description"), each.get("input_schema")
        )
        for each in fields.objects(body.get("tools"), "tools")
    )
    return Request(
        tuple(messages),
        tuple(tools),
        fields.count(body.get("max_tokens"), "max_tokens"),
        fields.stops(body.get("stop_sequences"), "stop_sequences"),
        bool(body.get("stream")),
        str(body.get("model") or "policy"),
    )


def _split(given: Mapping[str, Any], where: str) -> list[Message]:
    """A message; results of tools, which lie in user messages here, are messages of their own."""
    role, content = str(given.get("role")), given.get("content")
    if role not in ("user", "assistant", "system"):
        raise RequestRefused(f"{where}.role: expected user or assistant")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    text, calls, results = "", [], list[Message]()
    for block in fields.objects(content, where):
        kind = block.get("type")
        if kind == "text":
            text += fields.text(block, "text", where)
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
            called = {"name": fields.text(block, "name", where), "arguments": arguments}
            calls.append({"id": str(block.get("id")), "type": "function", "function": called})
        elif kind == "tool_result":
            found = fields.text_of(block.get("content"), where)
            call_id = fields.text(block, "tool_use_id", where)
            results.append({"role": "tool", "tool_call_id": call_id, "content": found})
        elif kind not in ("thinking", "redacted_thinking"):
            raise RequestRefused(f"{where}: expected text, got a block of type {kind!r:.40}")
    if calls:
        return [{"role": role, "content": text, "tool_calls": calls}]
    return [*results, *([{"role": role, "content": text}] if text or not results else [])]


def write(call: Call, request: Request, name: str) -> dict[str, Any]:
    """The JSON body of a reply."""
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": _blocks(call),
        "stop_reason": _STOPS[call.reply.finish],
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(call.prompt),
            "output_tokens": len(call.completion.tokens),
        },
    }


def _blocks(call: Call) -> list[dict[str, Any]]:
    reply, blocks = call.reply, list[dict[str, Any]]()
    if reply.thought:
        blocks.append({"type": "thinking", "thinking": reply.thought.strip(), "signature": ""})
    if reply.content or not reply.calls:
        blocks.append({"type": "text", "text": reply.content})
    for one, call_id in zip(reply.calls, reply.call_ids, strict=True):
        called = {"name": one.name, "input": dict(one.arguments)}
        blocks.append({"type": "tool_use", "id": call_id, **called})
    return blocks


def events(call: Call, request: Request, name: str) -> Iterator[tuple[str, Any]]:
    """The events of a streamed reply."""
    whole = write(call, request, name)
    usage = {**whole["usage"], "output_tokens": 0}
    started = {**whole, "content": [], "stop_reason": None, "usage": usage}
    yield "message_start", {"type": "message_start", "message": started}
    for index, block in enumerate(whole["content"]):
        yield from _block_events(block, {"index": index})
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": whole["usage"]}
    yield "message_stop", {"type": "message_stop"}


def _block_events(block: Mapping[str, Any], at: Mapping[str, int]) -> Iterator[tuple[str, Any]]:
    kind, empty = block["type"], dict[str, Any]()
    if kind == "tool_use":
        empty["input"] = {}
        text = json.dumps(block["input"], ensure_ascii=False)
        delta = {"type": "input_json_delta", "partial_json": text}
    else:
        empty[kind] = ""
        delta = {"type": f"{kind}_delta", kind: block[kind]}
    yield (
        "content_block_start",
        {
            "type": "content_block_start",
            **at,
            "content_block": {**block, **empty},
        },
    )
    yield "content_block_delta", {"type": "content_block_delta", **at, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", **at}


def error(message: str, status: int, code: str) -> dict[str, Any]:
    """The body of an error."""
    kind = {401: "authentication_error", 404: "not_found_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
