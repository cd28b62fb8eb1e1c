"""JSON that a model wrote, read strictly: nothing that JSON or UTF-8 does not have."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from agentgym.errors import MalformedAction

MAX_DEPTH = 32
"""Levels of nested JSON."""


def read(text: str) -> Any:
    """A value without duplicate keys, non-JSON numbers, deep nesting and lone surrogates.

    Raises:
        MalformedAction: The text is not JSON, or has one of those; the message is for the model.
    """
    try:
        found = _DECODER.decode(text)
        _check_depth(found)
        # JSON can escape lone surrogates, which cannot be encoded again.
        text.encode()
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedAction("The call contains half of a surrogate pair.") from None
    except (ValueError, RecursionError) as problem:
        raise _not_json(problem) from None
    return found


def end_of_value(text: str, start: int) -> int:
    """Where the JSON value that begins at ``start`` ends.

    Raises:
        MalformedAction: No value begins there.
    """
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError) as problem:
        raise _not_json(problem) from None


def no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """The pairs of an object.

    Raises:
        MalformedAction: A key occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise MalformedAction("The call names a key twice.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise MalformedAction(f"The call contains {name}, which is not JSON.")


def _not_json(problem: Exception) -> MalformedAction:
    return MalformedAction(f"The call is not JSON: {str(problem)[:120]}.")


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise MalformedAction(f"The call is nested deeper than {MAX_DEPTH} levels.")
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        _check_depth(item, depth + 1)


_DECODER = json.JSONDecoder(object_pairs_hook=no_duplicates, parse_constant=_no_constant)
