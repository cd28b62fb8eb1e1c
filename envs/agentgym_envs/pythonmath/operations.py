"""Parsed expressions are functions of their letters; these combine them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from agentgym_envs.pythonmath.arithmetic import Arithmetic

Value = Callable[[Arithmetic, Mapping[str, Any]], Any]
"""Arithmetic, values of the letters -> the value."""


def plus(a: Value, b: Value, sign: int) -> Value:
    """The sum, or with sign -1 the difference."""
    return lambda n, v: n.add(a(n, v), sign * b(n, v))


def negative(a: Value) -> Value:
    """The negative."""
    return lambda n, v: -a(n, v)


def times(a: Value, b: Value) -> Value:
    """The product."""
    return lambda n, v: n.times(a(n, v), b(n, v))


def over(a: Value, b: Value) -> Value:
    """The quotient."""
    return lambda n, v: n.over(a(n, v), b(n, v))


def power(a: Value, b: Value) -> Value:
    """The power."""
    return lambda n, v: n.power(a(n, v), b(n, v))


def root(a: Value, b: Value) -> Value:
    """The root of a degree."""
    return lambda n, v: n.root(a(n, v), b(n, v))


def binomial(a: Value, b: Value) -> Value:
    """The binomial coefficient."""
    return lambda n, v: n.binomial(a(n, v), b(n, v))


def degrees(a: Value) -> Value:
    """An angle in degrees, in radians."""
    return lambda n, v: n.times(a(n, v), n.over(n.constant("pi"), Fraction(180)))


def call(name: str, a: Value) -> Value:
    """A function by its name in ``lexer.FUNCTIONS``."""
    if name == "abs":
        return lambda n, v: n.absolute(a(n, v))
    if name in ("floor", "ceil"):
        return lambda n, v: n.rounding(a(n, v), name == "ceil")
    if name == "factorial":
        return lambda n, v: n.factorial(a(n, v))
    return lambda n, v: n.function(name, a(n, v))


def opaque(name: str, a: Value) -> Value:
    """An unknown function, for which a cubic polynomial of random coefficients stands."""
    digest = blake2b(f"function {name}".encode(), digest_size=4).digest()
    one, two, three, four = (Fraction(byte + 1, 101) for byte in digest)

    def value(n: Arithmetic, v: Mapping[str, Any]) -> Any:
        x, found = a(n, v), one
        for coefficient in (two, three, four):
            found = n.add(n.times(found, x), coefficient)
        return found

    return value
