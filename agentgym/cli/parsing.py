"""Words of a command line to options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import tyro

from agentgym.errors import ConfigError
from agentgym.settings import Value

T = TypeVar("T")

# Which of several dataclasses, such as the base of an algorithm, is chosen in a file; here the
# fields of the chosen one are flags like any others.
_NESTED = (tyro.conf.AvoidSubcommands,)


def parse(kind: type[T], words: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Options of a verb; leaves the program where help was asked for, or a word is none of them."""
    if default is None:
        return tyro.cli(kind, args=list(words), prog=prog, config=_NESTED)
    rest = list(words)
    joined: T = _joined(default, rest)
    return tyro.cli(kind, args=rest, prog=prog, default=joined, config=_NESTED)


def _joined(default: Any, words: list[str]) -> Any:
    """With what the words add to dictionaries; of one that holds something, tyro adds nothing."""
    held = {f.name: getattr(default, f.name) for f in fields(default)}
    more = {
        name: value | _take_pairs(words, f"--{name.replace('_', '-')}")
        for name, value in held.items()
        if isinstance(value, dict)
    }
    return replace(default, **more)


def _take_pairs(words: list[str], flag: str) -> dict[str, Value]:
    """Remove ``flag NAME VALUE NAME VALUE ...`` from the words and return what it says."""
    if flag not in words:
        return {}
    first = words.index(flag)
    flags = (i for i in range(first + 1, len(words)) if words[i].startswith("--"))
    last = next(flags, len(words))
    told = words[first + 1 : last]
    if not told or len(told) % 2:
        raise ConfigError(f"{flag} expects names and values in turn, got: {' '.join(told)}")
    del words[first:last]
    return {name: _value(text) for name, text in zip(told[::2], told[1::2], strict=True)}


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(text, text)


def take(words: list[str], flag: str) -> str | None:
    """Remove ``flag VALUE`` or ``flag=VALUE`` from the words and return the value."""
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return words.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 == len(words):
                raise ConfigError(f"{flag} needs a value")
            del words[index]
            return words.pop(index)
    return None


def value_of(words: Sequence[str], flag: str) -> str | None:
    """The value of ``flag VALUE`` or ``flag=VALUE``; the words keep it."""
    return take(list(words), flag)
