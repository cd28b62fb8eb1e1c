"""From the words of a command line to options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from agentgym.cli.flags import check_flags
from agentgym.env import registry
from agentgym.env.by_class import absolute
from agentgym.errors import ConfigError
from agentgym.settings import Value

T = TypeVar("T")

HELP_FLAGS = frozenset({"-h", "--help"})

# A file chooses among several dataclasses, such as the host of an algorithm; on the command line
# the fields of the chosen one are options like any others.
_NESTED = (tyro.conf.AvoidSubcommands,)


def parse(kind: type[T], words: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Options of a verb; exits where help was asked for or a value does not fit.

    ``--env-args NAME VALUE ...`` adds to the default's, ``--data FILE`` is the environment's
    argument ``data``, and names of environments and tools are completed.

    Raises:
        ConfigError: An option does not exist.
    """
    rest = list(words)
    pairs = take_pairs(rest, "--env-args")
    if not HELP_FLAGS & set(rest):
        check_flags(rest, kind if default is None else default, prog)
    if default is None:
        options = tyro.cli(kind, args=rest, prog=prog, config=_NESTED)
    else:
        options = tyro.cli(kind, args=rest, prog=prog, default=default, config=_NESTED)
    return _completed(options, pairs)


def _completed(options: T, pairs: dict[str, Value]) -> T:
    assert dataclasses.is_dataclass(options) and not isinstance(options, type)
    held: dict[str, Any] = {f.name: getattr(options, f.name) for f in fields(options)}
    changes: dict[str, Any] = {}
    if "env_args" in held:
        read = {name: read_value(value) for name, value in held["env_args"].items()}
        data = {} if held.get("data") is None else {"data": str(Path(held["data"]).absolute())}
        changes["env_args"] = read | pairs | data
    if isinstance(held.get("env"), str):
        changes["env"] = registry.full_id(held["env"])
    if "tools" in held:
        changes["tools"] = tuple(map(absolute, held["tools"]))
    if held.get("agent_program") is not None:
        changes["agent_program"] = absolute(held["agent_program"])
    found: T = replace(options, **changes)
    return found


def take_pairs(words: list[str], flag: str) -> dict[str, Value]:
    """Remove every ``flag NAME VALUE NAME VALUE ...`` from the words and return the pairs.

    Raises:
        ConfigError: A name lacks its value.
    """
    found: dict[str, Value] = {}
    while flag in words:
        first = words.index(flag)
        flags = (i for i in range(first + 1, len(words)) if words[i].startswith("--"))
        last = next(flags, len(words))
        given = words[first + 1 : last]
        if not given or len(given) % 2:
            raise ConfigError(f"{flag} expects names and values in turn, got: {' '.join(given)}")
        del words[first:last]
        found |= {
            name: read_value(text) for name, text in zip(given[::2], given[1::2], strict=True)
        }
    return found


def read_value(text: Value) -> Value:
    """A value of an environment's argument: a number, ``true`` or ``false``, else the text."""
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)


def take(words: list[str], flag: str) -> str | None:
    """Remove ``flag VALUE`` or ``flag=VALUE`` from the words and return the value.

    Raises:
        ConfigError: The value is missing.
    """
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return words.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 == len(words):
                raise ConfigError(f"{flag} needs a value")
            del words[index]
            return words.pop(index)
    return None


def take_all(words: list[str], flag: str) -> list[str]:
    """Remove every ``flag VALUE ...`` and ``flag=VALUE``, and return all values, once each.

    Raises:
        ConfigError: A value is missing.

    Examples:
        >>> take_all(["m", "--world", "a", "b", "--k", "1", "--world=c"], "--world")
        ['a', 'b', 'c']
    """
    found: dict[str, None] = {}
    for first in reversed([i for i, word in enumerate(words) if word.partition("=")[0] == flag]):
        after = (i for i in range(first + 1, len(words)) if words[i].startswith("-"))
        last = first + 1 if "=" in words[first] else next(after, len(words))
        given = [words[first].partition("=")[2]] if "=" in words[first] else words[first + 1 : last]
        if not all(given) or not given:
            raise ConfigError(f"{flag} needs a value")
        del words[first:last]
        found = dict.fromkeys(given) | found
    return list(found)


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of ``flag VALUE`` or ``flag=VALUE``; the words keep it."""
    return take(list(words), flag)
