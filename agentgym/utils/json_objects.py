"""Frozen dataclasses to and from JSON objects, checked field by field.

``agentgym.utils.yaml_config`` does the same for settings; this one is made for many long columns of
numbers, and knows that JSON has no NaN: a float is null there.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from agentgym.errors import ConfigError, did_you_mean

T = TypeVar("T")
Reader = Callable[[Any], Any]


class _MisfitError(Exception):
    """A value of another type; the message is what was expected."""


def to_object(value: Any) -> Any:
    """Plain JSON values: objects for dataclasses and named tuples; floats that JSON lacks as null.

    Columns of numbers are left to the encoder.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_object(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, map(to_object, value), strict=True))
    if isinstance(value, tuple) and value and not isinstance(value[0], int | float):
        return [to_object(item) for item in value]
    return value


def from_object(kind: type[T], found: Any, what: str) -> T:
    """A dataclass or named tuple from a JSON object; absent fields have their defaults.

    Args:
        kind: The class.
        found: The decoded JSON.
        what: What it is, for the error.

    Raises:
        ConfigError: A field is unknown, missing, or of another type.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(f"{what} is {_short(found)}, expected an object")
    hashable: Any = kind
    readers, required = _fields(hashable)
    if unknown := sorted(found.keys() - readers.keys()):
        hint = did_you_mean(unknown[0], readers)
        raise ConfigError(f"{what} has unknown fields: {', '.join(unknown)}.{hint}")
    if missing := [name for name in required if name not in found]:
        raise ConfigError(f"{what} lacks the fields {', '.join(missing)}")
    values = {}
    for name, value in found.items():
        try:
            values[name] = readers[name](value)
        except _MisfitError as problem:
            raise ConfigError(f"{name} of {what} is {_short(value)}, expected {problem}") from None
    return kind(**values)


@cache
def _fields(kind: type[Any]) -> tuple[dict[str, Reader], tuple[str, ...]]:
    """How each field is read, and which have no default."""
    hints = typing.get_type_hints(kind)
    if not dataclasses.is_dataclass(kind):
        return {name: _reader(hint, name) for name, hint in hints.items()}, tuple(hints)
    absent = dataclasses.MISSING
    named = {each.name: each for each in dataclasses.fields(kind)}
    required = tuple(
        name
        for name, each in named.items()
        if each.default is absent and each.default_factory is absent
    )
    return {name: _reader(hints[name], name) for name in named}, required


def _reader(kind: Any, name: str) -> Reader:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = _reader(arguments[0], name)
        return lambda value: None if value is None else inner(value)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _pair(arguments)
    if origin is tuple:
        return _column(arguments[0], name)
    if origin in (dict, Mapping) or kind is dict:
        inner = _reader(arguments[1], name) if arguments else _anything
        return lambda value: _mapping(value, inner)
    if kind in (Any, object):
        return _anything
    if kind is float:
        return _float
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda value: _member(kind, value)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        return lambda value: from_object(kind, value, f"an entry of {name}")
    return lambda value: _exactly(kind, value)


def _anything(value: Any) -> Any:
    return value


def _exactly(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise _MisfitError(_NAMES.get(kind, kind.__name__))
    return value


def _float(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float):
        raise _MisfitError("a number or null")
    return float(value)


def _member(kind: type[Enum], value: Any) -> Enum:
    try:
        return kind(value)
    except ValueError:
        raise _MisfitError(" or ".join(str(each.value) for each in kind)) from None


def _mapping(value: Any, inner: Reader) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _MisfitError("an object")
    return {key: inner(item) for key, item in value.items()}


def _pair(kinds: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or [*map(type, value)] != [*kinds]:
            raise _MisfitError(f"{len(kinds)} whole numbers")
        return tuple(value)

    return read


def _column(kind: Any, name: str) -> Reader:
    """A list; numbers are checked by the set of their types, which is fast."""
    numbers: dict[Any, set[type]] = {int: {int}, float: {int, float, type(None)}}
    allowed = numbers.get(kind)
    inner = _reader(kind, name)

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise _MisfitError("a list")
        if allowed is None:
            return tuple(map(inner, value))
        if not {*map(type, value)} <= allowed:
            raise _MisfitError("a list of numbers")
        return tuple(value) if kind is int or None not in value else tuple(map(_float, value))

    return read


_NAMES = {str: "a text", int: "a whole number", bool: "true or false"}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
