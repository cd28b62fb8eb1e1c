"""Whether two expressions have the same value, for all values of their letters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Any

from agentgym_envs.pythonmath.arithmetic import Arithmetic
from agentgym_envs.pythonmath.expressions import Expression, parse

_DIGITS = 60
"""Precision of a first comparison."""
_SPARE = 20
"""Digits that rounding may spoil."""
_MAX_DIGITS = 4000
_POINTS = 7
"""Values of the letters at which expressions are compared; the first three are positive."""


def equal_expressions(one: Expression, other: Expression, length: int) -> bool:
    """Equal wherever both are real, at several points.

    Args:
        one: An expression.
        other: Another one.
        length: Characters of both, which bound the digits of their numbers.
    """
    constants: dict[str, Any] = {}
    if one.letters != other.letters:
        # Sympy writes E and I for Euler's number and the imaginary unit.
        differing = one.letters ^ other.letters
        if not differing <= {"E", "I"}:
            renamed = _renamed(one, other)
            if renamed is not None:
                one, other = renamed
        else:
            constants = {name: _CONSTANTS[name] for name in differing}
    imaginary = one.imaginary or other.imaginary or "I" in constants
    letters = (one.letters | other.letters) - set(constants)
    if not letters:
        return _agree(one, other, constants, {}, imaginary=True, length=length) is True
    verdicts = []
    for point in range(_POINTS):
        values = {name: _letter_value(name, point) for name in letters}
        found = _agree(one, other, constants, values, imaginary=imaginary, length=length)
        if found is False:
            return False
        verdicts.append(found)
    if verdicts.count(True) >= 2:
        return True
    return all(
        _agree(
            one,
            other,
            constants,
            {name: _letter_value(name, point) for name in letters},
            imaginary=True,
            length=length,
        )
        for point in range(3)
    )


def _renamed(one: Expression, other: Expression) -> tuple[Expression, Expression] | None:
    """Both in small letters, where one has small letters only and the other capitals only."""
    ours, theirs = one.letters, other.letters
    if {name.lower() for name in ours} != {name.lower() for name in theirs}:
        return None
    if not all(name.isalpha() and len(name) == 1 for name in ours | theirs):
        return None
    if any(len({name.islower() for name in side}) != 1 for side in (ours, theirs)):
        return None

    def lower(expression: Expression) -> Expression:
        return Expression(
            lambda n, v: expression.value(
                n, {name: v[name.lower()] for name in expression.letters}
            ),
            frozenset(name.lower() for name in expression.letters),
            expression.imaginary,
        )

    return lower(one), lower(other)


_CONSTANTS = {"E": "e", "I": "i"}


def _agree(
    one: Expression,
    other: Expression,
    constants: dict[str, Any],
    values: dict[str, Any],
    *,
    imaginary: bool,
    length: int,
) -> bool | None:
    """Both have one value; None where one of them has no value, or no real one."""
    digits = _DIGITS
    while True:
        n = Arithmetic(digits)
        known = {**values, **{name: n.constant(to) for name, to in constants.items()}}
        try:
            a, b = one.value(n, known), other.value(n, known)
        except ArithmeticError:
            if values:
                return None
            raise
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a == b
        if n.left_reals and not imaginary:
            return None
        gap = abs(n.rounded(a) - n.rounded(b))
        scale = max(abs(n.rounded(a)), abs(n.rounded(b)), n.mp.mpf(2) ** n.largest)
        # Not `>`: a NaN is not equal to anything.
        if not gap <= scale * n.mp.mpf(10) ** (_SPARE - digits):
            return False
        needed = n.span + length + 2 * _SPARE
        if digits >= needed:
            return True
        if needed > _MAX_DIGITS:
            return False
        digits = needed + _SPARE


def _letter_value(name: str, point: int) -> Fraction:
    """A rational that stands for a letter: positive, and from the fourth point on of any sign."""
    digest = blake2b(f"{name}{point}".encode(), digest_size=6).digest()
    share = Fraction(int.from_bytes(digest[:5], "big") % 9973 + 1, 9991)
    if point < 3:
        return share + point * Fraction(10, 9)
    return (share * 2 + Fraction(1, 97)) * (-1 if digest[5] % 2 else 1)


def number(text: str) -> float:
    """The value of a real expression without letters, rounded."""
    return float(Arithmetic(_DIGITS).rounded(parse(text).value(Arithmetic(_DIGITS), {})))


def proportional(ours: Sequence[str], theirs: Sequence[str], sign: str) -> bool:
    """Both sides' differences have a constant ratio, a positive one for inequalities.

    Equations in one letter are not compared so: `2x = 10` is a question, not an answer.
    """
    first, second = (parse(f"({a})-({b})") for a, b in (ours, theirs))
    if first.letters != second.letters or len(first.letters) < 2:
        return False
    ratios = []
    for point in range(3):
        values = {name: _letter_value(name, point) for name in first.letters}
        n = Arithmetic(_DIGITS)
        ratios.append(n.over(first.value(n, values), second.value(n, values)))
    n = Arithmetic(_DIGITS)
    gap = max(abs(n.rounded(each) - n.rounded(ratios[0])) for each in ratios)
    small = gap <= abs(n.rounded(ratios[0])) * n.mp.mpf(10) ** (_SPARE - _DIGITS)
    return bool(small) and (sign == "=" or sign == "≠" or bool(ratios[0] > 0))
