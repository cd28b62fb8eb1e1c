"""Reading the fields of a request: what is wrong, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.programs.values import RequestRefused


def text_of(content: Any, where: str) -> str:
    """The text of a content: a text, null, or a list of text parts.

    Raises:
        RequestRefused: It is something else, such as an image.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestRefused(f"{where}: expected a text or a list of parts")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        found = part.get("text", part.get("refusal")) if isinstance(part, Mapping) else part
        if not isinstance(found, str):
            raise RequestRefused(f"{where}: expected text, got a part of type {kind!r}")
        parts.append(found)
    return "".join(parts)


def objects(value: Any, where: str) -> Sequence[Mapping[str, Any]]:
    """A list of JSON objects.

    Raises:
        RequestRefused: It is something else.
    """
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise RequestRefused(f"{where}: expected a list of objects")
    return value


def text(given: Mapping[str, Any], name: str, where: str) -> str:
    """A text field that must be there.

    Raises:
        RequestRefused: It is missing or something else.
    """
    found = given.get(name)
    if not isinstance(found, str):
        raise RequestRefused(f"{where}.{name}: expected a text")
    return found


def count(value: Any, where: str) -> int | None:
    """A number of tokens, or None where none is given.

    Raises:
        RequestRefused: It is not a positive integer.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestRefused(f"{where}: expected a positive integer, got {value!r:.40}")
    return value


def stops(value: Any, where: str) -> tuple[str, ...]:
    """Texts that end a completion; empty ones are left out.

    Raises:
        RequestRefused: They are no texts.
    """
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise RequestRefused(f"{where}: expected a text or a list of texts")
    return tuple(filter(None, found))


def function(name: str, description: Any, parameters: Any) -> dict[str, Any]:
    """The schema of a tool in the form of chat completions."""
    about = {"name": name, "description": description or "", "parameters": parameters or {}}
    return {"type": "function", "function": about}
