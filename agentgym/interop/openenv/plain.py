"""Answers of an environment as JSON, strictly: what JSON cannot hold is an error."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from agentgym.errors import EnvError


def to_json(message: dict[str, Any]) -> str:
    """A message in JSON; numbers of numpy become plain, sets become sorted lists.

    Raises:
        EnvError: A value is not plain, or a number is not finite; names it.
    """
    try:
        return json.dumps(message, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise EnvError(f"{_name_of_number(message)} must be a finite number") from None
    except TypeError as problem:
        raise EnvError(str(problem)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.number | np.bool_):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    raise TypeError(
        f"{value!r:.80} of type {type(value).__name__} cannot be sent: put plain values into info "
        f"(str, bool, int, float, None, and lists, tuples, sets and dictionaries of them)"
    )


def _name_of_number(value: Any, path: str = "") -> str:
    """The path of the first number that is not finite."""
    pairs = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        pairs = enumerate(value)  # type: ignore[assignment]
    for key, inner in pairs:
        if found := _name_of_number(inner, f"{path}.{key}".lstrip(".")):
            return found
    number = isinstance(value, float | np.floating) and not math.isfinite(value)
    return f"{path} is {value}, it" if number else ""
