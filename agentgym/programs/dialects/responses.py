"""OpenAI's Responses."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentgym.programs.dialects import fields
from agentgym.programs.dialogue import answer_message
from agentgym.programs.values import Call, Message, Request, RequestRefused


def read(body: Mapping[str, Any]) -> Request:
    """A request from its JSON body.

    Raises:
        RequestRefused: The body does not fit, or refers to an earlier response.
    """
    if body.get("previous_response_id") or body.get("conversation"):
        raise RequestRefused(
            "previous_response_id: nothing is stored here; send the whole conversation as `input`"
        )
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = _messages(fields.objects(items, "input"))
    if instructions := body.get("instructions"):
        messages.insert(0, {"role": "system", "content": str(instructions)})
    if not messages:
        raise RequestRefused("input: expected at least one item")
    return Request(
        tuple(messages),
        tuple(_tool(each) for each in fields.objects(body.get("tools"), "tools")),
        fields.count(body.get("max_output_tokens"), "max_output_tokens"),
        (),
        bool(body.get("stream")),
        str(body.get("model") or "policy"),
    )


def _messages(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Items as messages; text and calls of one answer are one message."""
    found: list[Message] = []
    for number, item in enumerate(items):
        where, kind = f"input[{number}]", item.get("type", "message")
        if kind == "reasoning":
            continue
        if kind == "function_call_output":
            output = item.get("output")
            content = fields.text_of(output, f"{where}.output")
            call_id = fields.text(item, "call_id", where)
            found.append({"role": "tool", "tool_call_id": call_id, "content": content})
        elif kind == "function_call":
            _answering(found).setdefault("tool_calls", []).append(_call(item, where))
        elif kind == "message":
            role = {"developer": "system"}.get(str(item.get("role")), str(item.get("role")))
            content = fields.text_of(item.get("content"), where)
            if role == "assistant":
                _answering(found)["content"] += content
            elif role in ("system", "user"):
                found.append({"role": role, "content": content})
            else:
                raise RequestRefused(f"{where}.role: expected user, assistant or system")
        else:
            raise RequestRefused(f"{where}.type: {kind!r:.40} is not served here")
    return found


def _answering(found: list[Message]) -> Message:
    """The assistant message at the end, which is added if need be."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": ""})
    return found[-1]


def _call(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    called = {name: fields.text(item, name, where) for name in ("name", "arguments")}
    return {"id": fields.text(item, "call_id", where), "type": "function", "function": called}


def _tool(given: Mapping[str, Any]) -> Mapping[str, Any]:
    if given.get("type") != "function":
        raise RequestRefused(f"tools: expected functions, got type {given.get('type')!r:.40}")
    name = fields.text(given, "name", "tools")
    return fields.function(name, given.get("description"), given.get("parameters"))


def write(call: Call, request: Request, name: str) -> dict[str, Any]:
    """The JSON body of a reply."""
    return _response(call, request, name, _output(call, name))


def _response(
    call: Call, request: Request, name: str, output: list[dict[str, Any]], *, done: bool = True
) -> dict[str, Any]:
    cut = call.reply.finish == "length"
    read, written = len(call.prompt), len(call.completion.tokens)
    usage = {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": call.thought_tokens},
        "total_tokens": read + written,
    }
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": int(time.time()),
        "status": ("incomplete" if cut else "completed") if done else "in_progress",
        "incomplete_details": {"reason": "max_output_tokens"} if cut and done else None,
        "error": None,
        "instructions": None,
        "metadata": {},
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if done else None,
    }


def _output(call: Call, name: str) -> list[dict[str, Any]]:
    reply, items = call.reply, list[dict[str, Any]]()
    if reply.thought:
        summary = [{"type": "summary_text", "text": reply.thought.strip()}]
        items.append({"type": "reasoning", "id": f"rs_{name}", "summary": summary})
    if reply.content or not reply.calls:
        text = {"type": "output_text", "text": reply.content, "annotations": [], "logprobs": []}
        items.append(
            {
                "type": "message",
                "id": f"msg_{name}",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        )
    for number, one in enumerate(answer_message(reply).get("tool_calls", ())):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{name}_{number}",
                "call_id": one["id"],
                "status": "completed",
                **one["function"],
            }
        )
    return items


def events(call: Call, request: Request, name: str) -> Iterator[tuple[str, Any]]:
    """The events of a streamed reply."""
    output = _output(call, name)
    started = _response(call, request, name, [], done=False)
    whole = _response(call, request, name, output)
    found: list[dict[str, Any]] = [{"type": "response.created", "response": started}]
    for index, item in enumerate(output):
        at = {"output_index": index, "item_id": item["id"]}
        opening = {**item, "status": "in_progress"} | _empty(item)
        found.append({"type": "response.output_item.added", "output_index": index, "item": opening})
        found += _parts(item, at)
        found.append({"type": "response.output_item.done", "output_index": index, "item": item})
    found.append({"type": f"response.{whole['status']}", "response": whole})
    for number, event in enumerate(found):
        yield event["type"], {**event, "sequence_number": number}


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[str, dict[str, Any]] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
    }
    return kinds.get(item["type"], {"summary": []})


def _parts(item: Mapping[str, Any], at: Mapping[str, Any]) -> list[dict[str, Any]]:
    if item["type"] == "function_call":
        kind, text = "response.function_call_arguments", item["arguments"]
        done = {"type": f"{kind}.done", **at, "arguments": text, "name": item["name"]}
        return [{"type": f"{kind}.delta", **at, "delta": text}, done]
    if item["type"] == "message":
        at, part = {**at, "content_index": 0}, item["content"][0]
        text, kind = part["text"], "response.output_text"
        opened = {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
        delta = {"type": f"{kind}.delta", **at, "delta": text, "logprobs": []}
        done = {"type": f"{kind}.done", **at, "text": text, "logprobs": []}
        closed = {"type": "response.content_part.done", **at, "part": part}
        return [opened, *([delta] if text else []), done, closed]
    return []
