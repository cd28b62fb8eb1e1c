"""Whether two texts are equal: as expressions of the same value, or as the same words."""

from __future__ import annotations

import re
from functools import partial

from agentgym_envs.pythonmath.arithmetic import NoExpression
from agentgym_envs.pythonmath.expressions import parse
from agentgym_envs.pythonmath.forms import NoForm
from agentgym_envs.pythonmath.units import Measured
from agentgym_envs.pythonmath.values import equal_expressions, number

FAILURES = (NoExpression, NoForm, ArithmeticError, ValueError, TypeError, RecursionError)
"""What a text that is no answer may raise."""


def squeezed(text: str) -> str:
    """Without case and blanks, except for blanks between numbers."""
    text = text.replace("⦃", "{").replace("⦄", "}")
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])", "*", text).replace("\\", "")
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text).casefold()


def equal_leaves(one: Measured, other: Measured) -> bool:
    """Quantities; a unit or a percent sign on one side alone is dress.

    A percentage is also its fraction of one, but a number without a sign is not a percentage of
    less than one.
    """
    if one.unit and other.unit and one.unit != other.unit:
        return False
    if one.percent == other.percent:
        return equal_texts(one.value, other.value)
    hundredth = partial("({0})/100".format)
    if other.percent:
        return equal_texts(one.value, other.value) or equal_texts(one.value, hundredth(other.value))
    if equal_texts(hundredth(one.value), other.value):
        return True
    return equal_texts(one.value, other.value) and abs(number(one.value)) >= 1


def equal_texts(one: str, other: str) -> bool:
    """Expressions of the same value, or the same words."""
    if squeezed(one) == squeezed(other):
        return True
    if re.search(r"[=<>≤≥≠∈]", one + other):
        return False
    one, other = _based(one), _based(other)
    if one.startswith("base") or other.startswith("base"):
        return one == other
    try:
        first, second = parse(one), parse(other)
    except FAILURES:
        return False
    return equal_expressions(first, second, len(one) + len(other))


def _based(text: str) -> str:
    """A number in another base than ten: ``52_8`` is neither 52 nor 42."""
    found = re.fullmatch(r"\(?([0-9A-Fa-f]+)\)?\s*_\s*\{?(?:\\text)?\s*(\d+)\s*\}?", text.strip())
    if found and not (found[1][0].isalpha() and len(found[1]) == 1):
        return f"base {found[2]}: {found[1].upper()}"
    return text
