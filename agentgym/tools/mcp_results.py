"""Results of MCP tools as texts that a model reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mcp


def result_text(result: mcp.types.CallToolResult) -> str:
    """A result as a model reads it: texts as they are, the rest by name."""
    parts = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource":
            parts.append(getattr(block.resource, "text", f"[{block.resource.uri}]"))
        elif block.type == "resource_link":
            parts.append(f"[{block.name}: {block.uri}]")
        else:
            parts.append(f"[{block.type}, {block.mime_type}]")
    structured = result.structured_content
    if structured is not None and not _repeats(parts, structured):
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(parts)


def _repeats(parts: list[str], structured: dict[str, Any]) -> bool:
    """The texts state the structured content already, whole or item by item."""
    whole = structured["result"] if structured.keys() == {"result"} else structured
    items = whole if isinstance(whole, list) else [whole]
    return parts in ([_json(whole)], [_json(item) for item in items]) or [
        _loaded(part) for part in parts
    ] in ([structured], [whole], items)


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _loaded(text: str) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found
