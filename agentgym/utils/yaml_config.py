"""Plain values to and from a tree of frozen dataclasses; the only file that knows YAML."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from agentgym.errors import ConfigError, did_you_mean

T = TypeVar("T")


_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """Reads ``1e-5`` as a number, as YAML 1.2 does; YAML 1.1 requires a point and a sign."""


_Loader.add_implicit_resolver(*_FLOAT)


class _Dumper(yaml.SafeDumper):
    """Quotes strings that ``_Loader`` would read as numbers."""


_Dumper.add_implicit_resolver(*_FLOAT)


def load(cls: type[T], path: str | Path) -> T:
    """Read a YAML file into ``cls``; fields that the file omits keep their defaults.

    Raises:
        ConfigError: The file cannot be read, or names a field or value that does not fit.
    """
    config: T = decode(cls, read(path), where=str(path))
    return config


def peek(path: str | Path, key: str) -> str | None:
    """One string of a YAML file, read before it is known which class the rest fits.

    Raises:
        ConfigError: The file cannot be read, or the value is no string.
    """
    value = read(path)
    found = value.get(key) if isinstance(value, dict) else None
    if found is not None and not isinstance(found, str):
        raise ConfigError(f"{path}.{key} is {found!r}, expected a name")
    return found


def read(path: str | Path) -> Any:
    """The plain values of a YAML file, in UTF-8.

    Raises:
        ConfigError: The file cannot be read or is not YAML.
    """
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except OSError as problem:
        raise ConfigError(f"cannot read the configuration {path}: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        first = str(problem).replace("\n", " ")
        raise ConfigError(f"{path} is not YAML: {first}") from problem
    return {} if value is None else value


def dump(config: Any) -> str:
    """The YAML text from which ``load`` rebuilds ``config``."""
    return yaml.dump(encode(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def encode(value: Any) -> Any:
    """Plain values: mappings, lists, strings, numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def decode(kind: Any, value: Any, *, where: str) -> Any:
    """Build a ``kind`` from plain values.

    Raises:
        ConfigError: An unknown field (with the nearest known one) or a value of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_fields(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is dict and isinstance(value, dict):
        return {str(k): decode(arguments[1], v, where=f"{where}.{k}") for k, v in value.items()}
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(decode(arguments[0], v, where=f"{where}[{i}]") for i, v in enumerate(value))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind is type(None) and value is None:
        return None
    if isinstance(kind, type) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise ConfigError(f"{where} is {value!r}, expected {name}")


def _decode_fields(kind: type[Any], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}, expected the fields of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for key in value:
        if key not in known:
            raise ConfigError(
                f"{where}: {kind.__name__} has no field {key!r}.{did_you_mean(str(key), known)}"
                f" Fields: {', '.join(known)}"
            )
    return kind(**{k: decode(hints[k], v, where=f"{where}.{k}") for k, v in value.items()})


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    problems = []
    for kind in kinds:
        try:
            return decode(kind, value, where=where)
        except ConfigError as problem:
            problems.append(str(problem))
    names = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise ConfigError(problems[0] if len(kinds) == 1 else f"{where} is {value!r}, expected {names}")
