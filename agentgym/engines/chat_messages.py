"""Between the text of an agent's conversation and the messages of a chat endpoint.

The text is written with the chat template ``CONVERSATION``. Thoughts of a service
(``reasoning_content``) appear in it as ``<think>...</think>``, native tool calls in the notation of
Hermes, ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, which the agent's action
format or the environment parses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentgym.errors import ConfigError
from agentgym.models import from_scratch
from agentgym.models.protocols import Tokenizer

Message = dict[str, Any]
"""A message of OpenAI's chat completions."""

CONVERSATION = (
    r"{% if tools %}<|tools|>{{ tools | tojson | replace('<|', '<\\u007c') }}{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}<tool_call>"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    "</tool_call>{% endfor %}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template of a conversation with an endpoint: schemas of tools, then one mark per role."""

_ROLE = re.compile(r"<\|(tools|system|user|assistant|tool)\|>")
_THOUGHT = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
_CALL = re.compile(r"\s*<tool_call>(.*?)</tool_call>\s*", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)


class Conversation(NamedTuple):
    """What a request carries."""

    messages: list[Message]
    tools: list[Message]
    """Schemas of functions."""


def make_tokenizer() -> Tokenizer:
    """A tokenizer of bytes whose chat template is ``CONVERSATION``."""
    tokenizer: Any = from_scratch.make_tokenizer((), from_scratch.MIN_VOCABULARY)
    marks = {"extra_special_tokens": ["<|tools|>", "<|tool|>"]}
    tokenizer.add_special_tokens(marks, replace_extra_special_tokens=False)
    tokenizer.chat_template = CONVERSATION
    return tokenizer  # type: ignore[no-any-return]


def conversation_of(
    text: str, marks: Sequence[str], *, native: bool = True, drop_thoughts: bool = False
) -> Conversation:
    """The messages and tools of a conversation.

    Args:
        text: Written with ``CONVERSATION``.
        marks: Special tokens, which are removed from contents.
        native: Send tools as ``tools``, calls in earlier answers as ``tool_calls``, and what
            follows them in the role ``tool``. Else the system prompt describes the tools, and calls
            and results are text.
        drop_thoughts: Leave out the thoughts of earlier answers, which a service that returns
            them apart does not want back.

    Raises:
        ConfigError: The text is not a conversation.
    """
    before, *parts = _ROLE.split(text)
    if before or not parts:
        raise ConfigError("a chat endpoint needs a prompt that a chat template has written")
    tools: list[Message] = []
    if parts[0] == "tools":
        tools, parts = json.loads(without(parts[1], marks)), parts[2:]
    turns = list(zip(parts[::2], (without(raw, marks) for raw in parts[1::2]), strict=True))
    if drop_thoughts:
        turns = [(role, _THOUGHT.sub("", t) if role == "assistant" else t) for role, t in turns]
    # The last mark only opens the answer.
    if turns[-1] == ("assistant", ""):
        turns.pop()
    if tools and native:
        return Conversation(_native(turns), tools)
    return Conversation(_plain(turns, tools), [])


def _native(turns: Sequence[tuple[str, str]]) -> list[Message]:
    """Messages with ``tool_calls`` and their results."""
    messages: list[Message] = []
    at = 0
    while at < len(turns):
        role, content = turns[at]
        at += 1
        calls = _calls(content, len(messages)) if role == "assistant" else []
        if not calls:
            messages.append({"role": "user" if role == "tool" else role, "content": content})
            continue
        content = _CALL.sub("", content)
        messages.append({"role": role, "content": content or None, "tool_calls": calls})
        # Every call needs a result: what follows, in the role tool, or in one piece.
        texts = []
        while at < len(turns) and turns[at][0] == "tool":
            texts.append(turns[at][1])
            at += 1
        if not texts and at < len(turns) and turns[at][0] == "user":
            texts, at = _RESULT.findall(turns[at][1]) or [turns[at][1]], at + 1
        messages += _results(texts, [call["id"] for call in calls])
    return messages


def _plain(turns: Sequence[tuple[str, str]], tools: Sequence[Message]) -> list[Message]:
    """Messages of text alone, with the tools in the system prompt."""
    messages: list[Message] = []
    for role, content in turns:
        if role == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
            if messages[-1]["role"] == "user":
                messages[-1]["content"] += f"\n{content}"
                continue
        messages.append({"role": "user" if role == "tool" else role, "content": content})
    if tools:
        about = _describe(tools)
        if messages[0]["role"] == "system":
            messages[0]["content"] += f"\n\n{about}"
        else:
            messages.insert(0, {"role": "system", "content": about})
    return messages


def _describe(tools: Sequence[Message]) -> str:
    schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return f"Tools:\n{schemas}\nA call: " + (
        '<tool_call>{"name": "...", "arguments": {...}}</tool_call>'
    )


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


def _results(texts: Sequence[str], calls: Sequence[str]) -> list[Message]:
    """Texts as results of the calls: one each; if their numbers differ, all for the first call."""
    if len(texts) != len(calls):
        texts = ["\n".join(texts)] + [""] * (len(calls) - 1)
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
