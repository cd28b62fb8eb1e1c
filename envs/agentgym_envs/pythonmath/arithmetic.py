"""Arithmetic of answers: exact for rationals, mpmath beyond, with bounded effort."""

from __future__ import annotations

import math
import threading
from fractions import Fraction
from typing import Any

_MAX_BITS = 150_000
"""Largest numerator, denominator or power, in bits."""
_MAX_WORK = 4_000_000
"""Bits of all intermediate results together."""
_MAX_ARGUMENT = 10_000
"""Largest argument of factorials, binomials and exponentials."""
_MAX_FUNCTIONS = 60
"""Most transcendental functions of an evaluation."""
_local = threading.local()


class NoExpression(Exception):
    """The text is not an expression that can be evaluated."""


class Arithmetic:
    """The operations of one evaluation; a value is a ``Fraction``, an mpmath real or complex.

    Rationals stay exact as long as the operations allow it, so ``2^2013`` and ``2^2013 - 1``
    differ. Everything else is rounded to a number of digits.

    Raises:
        NoExpression: An operation is too large.
        ArithmeticError: An operation is undefined.
    """

    def __init__(self, digits: int) -> None:
        self.mp = _context()
        self.mp.dps = digits
        self.left_reals = False
        """An operation on reals gave a complex number."""
        self.largest, self.smallest = 0, 0
        """Range of the binary exponents of all results."""
        self._work, self._functions = 0, 0

    @property
    def span(self) -> int:
        """Decimal digits between the smallest and the largest intermediate result."""
        return int((self.largest - self.smallest) * 0.302) + 1

    def number(self, text: str) -> Fraction:
        """A decimal literal, exactly."""
        mantissa, _, exponent = text.lower().partition("e")
        if exponent and abs(int(exponent)) > _MAX_ARGUMENT:
            raise NoExpression("too large an exponent")
        power = Fraction(10) ** int(exponent) if exponent else 1
        return self._exact(Fraction(mantissa) * power)

    def constant(self, name: str) -> Any:
        """``pi``, ``e`` or ``i``."""
        return self.mp.mpc(0, 1) if name == "i" else +getattr(self.mp, name)

    def add(self, a: Any, b: Any) -> Any:
        """The sum."""
        return self._kept(a + b if _exact(a, b) else self.rounded(a) + self.rounded(b))

    def times(self, a: Any, b: Any) -> Any:
        """The product."""
        return self._kept(a * b if _exact(a, b) else self.rounded(a) * self.rounded(b))

    def over(self, a: Any, b: Any) -> Any:
        """The quotient."""
        if b == 0:
            raise ZeroDivisionError
        return self._kept(a / b if _exact(a, b) else self.rounded(a) / self.rounded(b))

    def power(self, a: Any, b: Any) -> Any:
        """``a`` to the power ``b``; the principal value of several."""
        if isinstance(b, Fraction) and isinstance(a, Fraction):
            if b.denominator == 1:
                return self._whole_power(a, int(b))
            if a >= 0 and b.denominator <= 100:
                base = _exact_root(a, b.denominator)
                if base is not None:
                    return self._whole_power(base, b.numerator)
        self._count()
        x, y = self.rounded(a), self.rounded(b)
        if x == 0:
            if self.mp.re(y) <= 0:
                raise ZeroDivisionError
            return Fraction(0)
        if abs(y) * (1 + abs(self.mp.log(abs(x)))) > _MAX_BITS:
            raise NoExpression("too large a power")
        return self._kept(self._real(self.mp.power(x, y), a, b))

    def root(self, a: Any, degree: Any) -> Any:
        """The root of a degree; of a negative number and an odd degree, the real one."""
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= 1000:
            return self.power(a, self.over(Fraction(1), degree))
        odd = int(degree) % 2 == 1
        if odd and not isinstance(a, self.mp.mpc) and a < 0:
            return -self.root(-a, degree)
        return self.power(a, 1 / degree)

    def factorial(self, a: Any) -> Any:
        """``a!``, or the gamma function of ``a + 1``."""
        if abs(a) > _MAX_ARGUMENT:
            raise NoExpression("too large a factorial")
        if isinstance(a, Fraction) and a.denominator == 1:
            if a < 0:
                raise ZeroDivisionError
            return self._exact(Fraction(math.factorial(int(a))))
        self._count()
        return self._kept(self.mp.factorial(self.rounded(a)))

    def binomial(self, a: Any, b: Any) -> Any:
        """``a`` choose ``b``."""
        if max(abs(a), abs(b)) > _MAX_ARGUMENT:
            raise NoExpression("too large a binomial")
        if _exact(a, b) and a.denominator == b.denominator == 1 and a >= 0 and b >= 0:
            return self._exact(Fraction(math.comb(int(a), int(b))))
        self._count()
        return self._kept(self.mp.binomial(self.rounded(a), self.rounded(b)))

    def absolute(self, a: Any) -> Any:
        """The absolute value."""
        return abs(a)

    def rounding(self, a: Any, up: bool) -> Any:
        """The integer below, or above."""
        if isinstance(a, self.mp.mpc):
            raise NoExpression("a complex number has no floor")
        if isinstance(a, Fraction):
            return Fraction(math.ceil(a) if up else math.floor(a))
        found = self.mp.ceil(a) if up else self.mp.floor(a)
        if abs(found) > 10**30:
            raise NoExpression("too large a floor")
        return Fraction(int(found))

    def function(self, name: str, a: Any) -> Any:
        """A function of mpmath, such as ``sin`` or ``ln``."""
        self._count()
        x = self.rounded(a)
        if abs(x) > _MAX_ARGUMENT and name != "ln":
            raise NoExpression("too large an argument")
        if name == "ln" and x == 0:
            raise ZeroDivisionError
        return self._kept(self._real(getattr(self.mp, name)(x), a))

    def rounded(self, a: Any) -> Any:
        """A value as a number of mpmath."""
        if isinstance(a, Fraction):
            return self.mp.mpf(a.numerator) / a.denominator
        return a

    def _whole_power(self, a: Fraction, b: int) -> Any:
        bits = max(a.numerator.bit_length(), a.denominator.bit_length())
        if a in (0, 1, -1):
            bits = 1 if b.bit_length() > 64 else 0
        if bits * abs(b) > _MAX_BITS:
            raise NoExpression("too large a power")
        return self._exact(a**b)

    def _real(self, found: Any, *inputs: Any) -> Any:
        """A result; of real inputs a complex one is noted."""
        if isinstance(found, self.mp.mpc):
            if found.imag == 0:
                return found.real
            if not any(isinstance(each, self.mp.mpc) for each in inputs):
                self.left_reals = True
        return found

    def _count(self) -> None:
        self._functions += 1
        if self._functions > _MAX_FUNCTIONS:
            raise NoExpression("too many functions")

    def _kept(self, value: Any) -> Any:
        if isinstance(value, Fraction):
            return self._exact(value)
        self._work += int(self.mp.prec)
        if self._work > _MAX_WORK:
            raise NoExpression("too much work")
        if not self.mp.isfinite(value):
            raise NoExpression("not finite")
        if value != 0:
            self._span(int(self.mp.mag(value)))
        return value

    def _exact(self, value: Fraction) -> Fraction:
        top, bottom = value.numerator.bit_length(), value.denominator.bit_length()
        self._work += top + bottom
        if max(top, bottom) > _MAX_BITS or self._work > _MAX_WORK:
            raise NoExpression("too large")
        if value:
            self._span(top - bottom)
        return value

    def _span(self, exponent: int) -> None:
        self.largest = max(self.largest, exponent)
        self.smallest = min(self.smallest, exponent)


def _exact(a: Any, b: Any) -> bool:
    return isinstance(a, Fraction) and isinstance(b, Fraction)


def _exact_root(a: Fraction, degree: int) -> Fraction | None:
    """The rational root, if it is rational."""
    found = [_integer_root(part, degree) for part in (a.numerator, a.denominator)]
    return None if None in found else Fraction(*found)  # type: ignore[arg-type]


def _integer_root(a: int, degree: int) -> int | None:
    if degree == 2:
        low = math.isqrt(a)
    else:
        low, high = 0, 1 << (a.bit_length() // degree + 1)
        while low < high - 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle**degree <= a else (low, middle)
    return low if low**degree == a else None


def _context() -> Any:
    """The mpmath context of this thread; the global one shares its precision between threads."""
    found = getattr(_local, "context", None)
    if found is None:
        from mpmath import MPContext

        found = _local.context = MPContext()
    return found
