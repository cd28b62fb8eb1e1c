"""How a chat template takes tools: found by rendering a call and its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from agentgym.rollout.rendering import Message, Rendering

_VALUE, _RESULT = "QxValue1", "QxResult3"
_TOOL: Message = {
    "type": "function",
    "function": {
        "name": "qx_tool",
        "description": "A tool.",
        "parameters": {
            "type": "object",
            "properties": {"value": {"type": "string", "description": "A value."}},
            "required": ["value"],
        },
    },
}


class ToolStyle(NamedTuple):
    """How a template takes an assistant message with tool calls."""

    content: str | None
    """Content beside the calls when there is no text."""
    arguments: Literal["object", "json"]
    """Arguments as an object, or as a JSON string."""

    def message(
        self,
        calls: Sequence[tuple[str, Mapping[str, object]]],
        content: str,
        call_ids: Sequence[str],
    ) -> Message:
        """An assistant message with calls, each a name and arguments."""
        found = [
            {
                "id": call_id,
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": json.dumps(arguments, ensure_ascii=False)
                    if self.arguments == "json"
                    else dict(arguments),
                },
            }
            for (name, arguments), call_id in zip(calls, call_ids, strict=True)
        ]
        return {"role": "assistant", "content": content or self.content, "tool_calls": found}


def lists_tools(rendering: Rendering) -> bool:
    """The template describes tools to the model."""
    text = rendering.attempt([{"role": "user", "content": "hello"}], tools=[_TOOL])
    return text is not None and "qx_tool" in text


def find_tool_style(rendering: Rendering) -> ToolStyle | None:
    """The style in which the template renders call and result; None where it renders neither."""
    styles = [
        ToolStyle(content, arguments) for arguments in ("object", "json") for content in ("", None)
    ]
    return next((style for style in styles if _takes(rendering, style)), None)


def _takes(rendering: Rendering, style: ToolStyle) -> bool:
    user = {"role": "user", "content": "hello"}
    result = {"role": "tool", "name": "qx_tool", "tool_call_id": "call00000", "content": _RESULT}
    call = style.message([("qx_tool", {"value": _VALUE})], "", ["call00000"])
    text = rendering.attempt([user, call, result])
    if text is None:
        return False
    places = [text.find(part) for part in ("qx_tool", _VALUE, _RESULT)]
    # A JSON string that the template writes as a string again has its quotes escaped.
    return -1 not in places and places == sorted(places) and '\\"value\\"' not in text
