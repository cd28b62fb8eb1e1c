"""Defaults of many configurations at a glance: what most agree on, and where each differs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

FEW = 5
"""Configurations that must have a field before a value of it can be usual."""


def usual(configs: Iterable[Any]) -> dict[str, str]:
    """The value that more than half of the configurations with a field have, most common first."""
    found: dict[str, Counter[str]] = {}
    for config in configs:
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if not dataclasses.is_dataclass(value):
                found.setdefault(field.name, Counter())[_text(value)] += 1
    ranked = sorted(found.items(), key=lambda item: -item[1].total())
    best = {name: (*values.most_common(1)[0], values.total()) for name, values in ranked}
    return {
        name: value for name, (value, count, of) in best.items() if of >= FEW and 2 * count > of
    }


def unusual(config: Any, known: dict[str, str]) -> str:
    """The other values of a configuration, as ``field=value``.

    Of a configuration within, only its class and what differs from the defaults of that class.
    """
    parts = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            parts.append(f"{field.name}={type(value).__name__}")
            parts += [f"{field.name}.{name}={text}" for name, text in _changed(value)]
        elif known.get(field.name) != _text(value):
            parts.append(f"{field.name}={_text(value)}")
    return " ".join(parts)


def _changed(config: Any) -> Iterable[tuple[str, str]]:
    plain = type(config)()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(plain, field.name):
            yield field.name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    return f"{value:g}" if isinstance(value, float) else str(value)
