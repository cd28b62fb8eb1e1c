"""Whether keyword arguments of an environment have the types that its initialisers state.

A command line and a YAML file hold numbers, truth values and texts of any kind, and Python accepts
them all: the text ``no`` for a truth value counts as true, and a number that is none fails deep
inside an environment. Only plain annotations are checked: ``bool``, ``int``, ``float``, ``str``,
and unions of these. What has another one is left to the environment.
"""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any

_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_UNIONS = (types.UnionType, typing.Union)


def wrong_type(kwargs: Mapping[str, object], initialisers: Sequence[Callable[..., Any]]) -> str:
    """The first argument of a type that is not stated and what was expected; empty without one.

    Args:
        kwargs: The arguments; None counts as unset.
        initialisers: What takes them; the first one that names an argument states its type.

    Examples:
        >>> def make(size: int = 3, python: bool = False) -> None: ...
        >>> wrong_type({"size": 5, "python": "no"}, [make])
        "python is 'no', expected true or false"
        >>> wrong_type({"size": 5, "python": True}, [make])
        ''
    """
    functions = list(filter(inspect.isroutine, initialisers))
    for name, value in kwargs.items():
        stated = next((s[name] for s in map(_stated, functions) if name in s), ())
        if value is not None and stated and not any(_fits(value, kind) for kind in stated):
            expected = " or ".join(_EXPECTED[kind] for kind in stated)
            return f"{name} is {value!r}, expected {expected}"
    return ""


def choices(initialiser: Callable[..., Any]) -> dict[str, str]:
    """Arguments that take one of a few values, with these as ``Literal['one', 'other']``."""
    hints = _hints(initialiser).items()
    return {
        name: str(hint).removeprefix("typing.")
        for name, hint in hints
        if typing.get_origin(hint) is typing.Literal
    }


@cache
def _stated(initialiser: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """Plain types of each argument; none where it has another type, or one that is not found."""
    taken = inspect.signature(initialiser).parameters
    hints = _hints(initialiser)
    return {name: _plain(hints.get(name)) for name in taken}


def _hints(initialiser: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(initialiser)
    except Exception:  # Annotations are code: a name may be imported for type checkers alone.
        return {}


def _plain(hint: Any) -> tuple[type, ...]:
    members = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    kinds = tuple(kind for kind in members if kind is not types.NoneType)
    return kinds if all(kind in _EXPECTED for kind in kinds) else ()


def _fits(value: object, kind: type) -> bool:
    if kind is bool:
        return isinstance(value, bool) or (isinstance(value, Integral) and value in (0, 1))
    if isinstance(value, bool):
        return False
    kinds: dict[type, Any] = {int: Integral, float: Real, str: (str, os.PathLike)}
    return isinstance(value, kinds[kind])
