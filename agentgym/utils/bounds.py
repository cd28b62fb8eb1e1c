"""Refusing impossible hyper-parameters when a configuration is built, in one line each."""

from __future__ import annotations

import math
from typing import Any

from agentgym.errors import ImpossibleValue


def at_least(low: float, config: Any, *names: str) -> None:
    """Refuse fields below ``low``, or not finite; a field that is None is unset.

    Args:
        low: The smallest value.
        config: A dataclass; a class attribute ``section`` names it in errors, else its class does.
        *names: The fields.

    Raises:
        ImpossibleValue: Names the section, the field, its value and what was expected.
    """
    for name in names:
        _require(config, name, lambda value: value >= low, f"at least {low:g}")


def above(low: float, config: Any, *names: str) -> None:
    """Refuse fields that are not above ``low``, or not finite.

    Raises:
        ImpossibleValue: As in ``at_least``.
    """
    for name in names:
        _require(config, name, lambda value: value > low, f"a number above {low:g}")


def within(low: float, high: float, config: Any, *names: str) -> None:
    """Refuse fields outside [low, high].

    Raises:
        ImpossibleValue: As in ``at_least``.
    """
    for name in names:
        _require(config, name, lambda value: low <= value <= high, f"{low:g} to {high:g}")


def finite(config: Any, *names: str) -> None:
    """Refuse fields that are not finite, where any sign and size has a meaning.

    Raises:
        ImpossibleValue: As in ``at_least``.
    """
    for name in names:
        _require(config, name, lambda value: True, "a finite number")


def ordered(config: Any, lower: str, upper: str) -> None:
    """Refuse a field that is not below another one.

    Raises:
        ImpossibleValue: As in ``at_least``.
    """
    bound = getattr(config, upper)
    _require(config, lower, lambda value: value < bound, f"less than {upper} ({bound:g})")


def _require(config: Any, name: str, holds: Any, expected: str) -> None:
    value = getattr(config, name)
    if value is not None and not (math.isfinite(value) and holds(value)):
        section = getattr(config, "section", type(config).__name__)
        field = f"{section}.{name}" if section else name
        raise ImpossibleValue(f"{field} is {value!r}, expected {expected}")
