"""Between a conversation and messages in OpenAI's form, with tools and calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentgym.errors import ConfigError
from agentgym.interchange.conversation import Conversation, Exchange
from agentgym.types import ToolCall

Message = dict[str, Any]


def without_last_answer(held: Conversation) -> Conversation:
    """The conversation up to the last thing that the model wrote, as training data ends."""
    *before, last = held.exchanges or (None,)
    if last is None:
        return held
    return replace(held, exchanges=(*before, replace(last, results=())))


def messages_of(held: Conversation, *, texts: bool = True) -> list[Message]:
    """The messages.

    Args:
        held: The conversation.
        texts: Arguments of calls are JSON texts, as OpenAI writes them; otherwise objects.
    """
    found: list[Message] = [{"role": "system", "content": held.system}] if held.system else []
    found.append({"role": "user", "content": held.user})
    for number, exchange in enumerate(held.exchanges):
        found += _exchange_messages(number, exchange, texts)
    return found


def _exchange_messages(number: int, exchange: Exchange, texts: bool) -> Iterator[Message]:
    ids = [f"call_{number}_{index}" for index in range(len(exchange.calls))]
    answer: Message = {"role": "assistant", "content": exchange.content}
    if exchange.calls:
        answer["tool_calls"] = [
            {"id": id_, "type": "function", "function": _function(call, texts)}
            for id_, call in zip(ids, exchange.calls, strict=True)
        ]
    yield answer
    for index, result in enumerate(exchange.results):
        if exchange.calls:
            named = {"tool_call_id": ids[index], "name": exchange.calls[index].name}
            yield {"role": "tool", **named, "content": result}
        else:
            yield {"role": "user", "content": result}


def _function(call: ToolCall, texts: bool) -> Message:
    arguments = dict(call.arguments)
    written = json.dumps(arguments, ensure_ascii=False) if texts else arguments
    return {"name": call.name, "arguments": written}


def conversation_from(messages: Any, tools: Any = None) -> Conversation:
    """The conversation of messages, this project's or another's.

    System messages before the first answer are joined, and so are the user messages there. What
    follows an answer is its observation. Thoughts of other fields come before the content.

    Raises:
        ConfigError: These are not messages.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ConfigError("got no messages, expected a list of objects with role and content")
    system: list[str] = []
    user: list[str] = []
    exchanges: list[Exchange] = []
    for number, message in enumerate(messages, start=1):
        role, text = _read(message, number)
        if role == "assistant":
            exchanges.append(Exchange(text, _calls(message, number), ()))
        elif exchanges:
            last = exchanges[-1]
            exchanges[-1] = replace(last, results=(*last.results, text))
        elif role in ("system", "developer"):
            system.append(text)
        else:
            user.append(text)
    schemas = tuple(each for each in tools or () if isinstance(each, Mapping))
    return Conversation("\n\n".join(system), "\n\n".join(user), tuple(exchanges), schemas)


def _read(message: Any, number: int) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in ("system", "developer", "user", "assistant", "tool", "function"):
        raise ConfigError(f"message {number} has the role {role!r}, expected system, user, ...")
    thought = message.get("reasoning_content") or message.get("reasoning")
    text = text_of(message.get("content"))
    return role, f"<think>{thought}</think>{text}" if isinstance(thought, str) else text


def text_of(content: Any) -> str:
    """The text of a content: a text, or parts; a part without text is named by its type."""
    if isinstance(content, list | tuple):
        return "".join(map(_part, content))
    return "" if content is None else str(content)


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    return str(part["text"]) if "text" in part else f"[{part.get('type', 'part')}]"


def _calls(message: Mapping[str, Any], number: int) -> tuple[ToolCall, ...]:
    try:
        return tuple(_call(each) for each in message.get("tool_calls") or ())
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        raise ConfigError(
            f"message {number} has a call that is not name and JSON arguments ({problem})"
        ) from problem


def _call(found: Mapping[str, Any]) -> ToolCall:
    function = found.get("function", found)
    arguments = function["arguments"]
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, Mapping):
        raise ValueError("arguments are no object")
    return ToolCall(str(function["name"]), dict(arguments))
