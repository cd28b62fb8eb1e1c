"""Between the text of an agent's conversation and the messages of a chat endpoint.

Thoughts of a service (``reasoning_content``) appear in the text as ``<think>...</think>``, native
tool calls in the notation of Hermes, ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``,
which the agent's action format or the environment parses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.errors import ConfigError

Message = dict[str, Any]
"""A message of OpenAI's chat completions."""

_ROLE = re.compile(r"<\|(system|user|assistant)\|>")
_THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
_CALL = re.compile(r"\s*<tool_call>(.*?)</tool_call>\s*", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)


def messages_of(text: str, marks: Sequence[str], *, tools: bool, drop_thoughts: bool) -> list[Any]:
    """The messages of a conversation.

    Args:
        text: Written with the chat template ``from_scratch.DIALOGUE``.
        marks: Special tokens, which are removed from contents.
        tools: Calls in earlier answers are sent as ``tool_calls``, and what follows them in the
            role ``tool``.
        drop_thoughts: Leave out the thoughts of earlier answers, which a service that returns
            them apart does not want back.

    Raises:
        ConfigError: The text is not a conversation.
    """
    before, *parts = _ROLE.split(text)
    if before or not parts:
        raise ConfigError("a chat endpoint needs a prompt that a chat template has written")
    messages: list[Message] = []
    pending: list[str] = []
    for role, raw in zip(parts[::2], parts[1::2], strict=True):
        content = without(raw, marks)
        if role == "assistant" and drop_thoughts:
            content = _THOUGHT.sub("", content)
        if role == "user" and pending:
            messages += _results(content, pending)
            pending = []
            continue
        messages.append({"role": role, "content": content})
        if role == "assistant" and tools and (calls := _calls(content, len(messages))):
            messages[-1] |= {"content": _CALL.sub("", content) or None, "tool_calls": calls}
            pending = [call["id"] for call in calls]
    # The last mark only opens the answer.
    return messages[:-1] if messages[-1] == {"role": "assistant", "content": ""} else messages


def without(text: str, marks: Sequence[str]) -> str:
    """The text without any of the marks."""
    for mark in marks:
        text = text.replace(mark, "")
    return text


def _calls(content: str, number: int) -> list[Message]:
    """The calls in an answer as ``tool_calls``; empty unless all of them are well formed."""
    calls = []
    for index, body in enumerate(_CALL.findall(content)):
        try:
            call = json.loads(body)
            name, arguments = call["name"], json.dumps(call["arguments"], ensure_ascii=False)
        except (KeyError, TypeError, ValueError, RecursionError):
            return []
        function = {"name": name, "arguments": arguments}
        calls.append({"id": f"call_{number}_{index}", "type": "function", "function": function})
    return calls


def _results(content: str, calls: Sequence[str]) -> list[Message]:
    """An observation as results of the calls: one each, or the whole for the first."""
    texts = _RESULT.findall(content)
    if len(texts) != len(calls):
        texts = [content] + [""] * (len(calls) - 1)
    return [
        {"role": "tool", "tool_call_id": call, "content": text}
        for call, text in zip(calls, texts, strict=True)
    ]


def text_of(message: Mapping[str, Any], *, cut: bool) -> str:
    """The text of an answer: thought, content, calls.

    Args:
        message: Of the assistant.
        cut: The answer ended at its limit, so that a thought without content is unfinished.

    Raises:
        TypeError: The content has an unknown form.
        LookupError: A field is missing.
    """
    calls = message.get("tool_calls") or []
    thought, content = _split(message["content"] if not calls else message.get("content"))
    thought = thought or message.get("reasoning_content") or message.get("reasoning") or ""
    content = content or message.get("refusal") or ""
    written = [_call_text(call["function"]) for call in calls]
    answer = "\n".join([*([content] if content else []), *written])
    if not thought:
        return answer
    thought = without(thought, ("<think>", "</think>"))
    return f"<think>{thought}" if cut and not answer else f"<think>{thought}</think>\n{answer}"


def _split(content: Any) -> tuple[str, str]:
    """Thought and text of a content, which is a text, a list of parts, or null."""
    if content is None or isinstance(content, str):
        return "", content or ""
    thought, text = "", ""
    for part in content:
        if part["type"] == "thinking":
            thought += _split(part["thinking"])[1]
        elif part["type"] in ("text", "output_text"):
            text += part["text"]
    return thought, text


def _call_text(function: Mapping[str, Any]) -> str:
    """A native call in the notation of Hermes; arguments that are no JSON stay as they are."""
    arguments: Any = function["arguments"]
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    # `</` occurs inside strings only, where the escaped form means the same.
    arguments = (arguments.strip() or "{}").replace("</", "<\\/")
    name = json.dumps(function["name"])
    return f'<tool_call>{{"name": {name}, "arguments": {arguments}}}</tool_call>'
