r"""Expressions in plain and LaTeX notation: read into a tree, evaluated with bounded effort.

Grammar, loosest first: sums; products, also by juxtaposition; signs; powers; factorials; atoms:
numbers, letters, ``\pi``, ``\frac{a}{b}``, ``\sqrt[n]{x}``, ``\binom{n}{k}``, functions, groups.
A single small ``e`` and ``i`` are Euler's number and the imaginary unit; ``\infty`` is a letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LONGEST = 1000
"""Characters of an expression."""
_LARGEST = 10_000
"""Size of an exponent, a factorial or a binomial that is still worked out."""
_DEEPEST = 40

_TOKEN = re.compile(
    r"\s*(?:(\d+\.?\d*|\.\d+)|\\([a-zA-Z]+)|(sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|abs)(?![a-zA-Z])"
    r"|([a-zA-Z])|(\*\*|[-+*/^(){}\[\]!|]))"
)
_TIMES = {"cdot", "times"}
_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "abs"}
_PROSE = re.compile(r"(?<![\\a-zA-Z])(?!sqrt|sin|cos|tan|cot|sec|csc|log|exp|abs)[a-zA-Z]{3}")
"""A word, which is no product of its letters."""

Value = Callable[[Any, Mapping[str, Any]], Any]
"""Arithmetic, values of the letters -> the value."""


class NoExpression(Exception):
    """The text is no expression that can be worked out."""


class Expression(NamedTuple):
    """A tree and the letters in it."""

    value: Value
    letters: frozenset[str]


def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        NoExpression: It is none, or too long or deep.
    """
    if len(text) > LONGEST or _PROSE.search(text):
        raise NoExpression(text[:80])
    tokens: list[tuple[str, str]] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NoExpression(text[at:])
        number, command, function, letter, sign = match.groups()
        word = command or function
        kind = "number" if number else "word" if word else "letter" if letter else "sign"
        tokens.append((kind, number or word or letter or sign))
        at = match.end()
    reader = _Reader(tokens)
    value = reader.sum()
    if reader.peek() != ("", ""):
        raise NoExpression(f"left over: {reader.peek()[1]}")
    return Expression(value, frozenset(reader.letters))


class _Reader:
    """Recursive descent; each method reads one level of the grammar."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.letters: set[str] = set()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def take(self, sign: str) -> bool:
        """Read one sign if it is next."""
        if self.peek() == ("sign", sign):
            self.at += 1
            return True
        return False

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise NoExpression(f"expected {sign}")

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise NoExpression("too deep")
        value = self.product()
        while True:
            if self.take("+"):
                value = _plus(value, self.product(), 1)
            elif self.take("-"):
                value = _plus(value, self.product(), -1)
            else:
                self.depth -= 1
                return value

    def product(self) -> Value:
        value = self.signed()
        while True:
            kind, word = self.peek()
            if self.take("*") or (kind == "word" and word in _TIMES and self._skip()):
                value = _times(value, self.signed())
            elif self.take("/") or ((kind, word) == ("word", "div") and self._skip()):
                value = _over(value, self.signed())
            elif kind in ("number", "letter", "word") or word in ("(", "{"):
                # Two numbers side by side are a typing error or a mixed number, not a product.
                if kind == "number" and self.tokens[self.at - 1][0] == "number":
                    raise NoExpression("two numbers side by side")
                value = _times(value, self.power())
            else:
                return value

    def signed(self) -> Value:
        minus = False
        while self.peek() in (("sign", "-"), ("sign", "+")):
            minus ^= self.take("-") or not self._skip()
        value = self.power()
        return _plus(lambda n, v: n.mpf(0), value, -1) if minus else value

    def power(self) -> Value:
        value = self.atom()
        while self.take("!"):
            value = _factorial(value)
        if self.take("^") or self.take("**"):
            minus = self.take("-")
            self.depth += 1
            if self.depth > _DEEPEST:
                raise NoExpression("too deep")
            raised = self.power()
            self.depth -= 1
            value = _power(value, raised, -1 if minus else 1)
        return value

    def atom(self) -> Value:
        kind, word = self.peek()
        self.at += 1
        if kind == "number":
            return lambda n, v: n.mpf(word)
        if kind == "letter":
            return self._letter(word)
        if kind == "word":
            return self._word(word)
        pairs = {"(": ")", "{": "}", "[": "]", "|": "|"}
        if kind == "sign" and word in pairs:
            value = self.sum()
            self.need(pairs[word])
            return (lambda n, v: abs(value(n, v))) if word == "|" else value
        raise NoExpression(f"unexpected {word or 'end'}")

    def _skip(self) -> bool:
        self.at += 1
        return True

    def _letter(self, word: str) -> Value:
        if word == "e":
            return lambda n, v: n.e
        if word == "i":
            return lambda n, v: n.mpc(0, 1)
        self.letters.add(word)
        return lambda n, v: v[word]

    def _word(self, word: str) -> Value:
        if word == "pi":
            return lambda n, v: n.pi
        if word == "infty":
            return self._letter(word)
        if word == "frac":
            return _over(self._argument(), self._argument())
        if word == "binom":
            return _binomial(self._argument(), self._argument())
        if word == "sqrt":
            root: Value = lambda n, v: n.mpf(2)  # noqa: E731 - one of two values
            if self.take("["):
                root = self.sum()
                self.need("]")
            return _root(self._argument(), root)
        if word in _FUNCTIONS:
            inner = self._argument()
            name = {"abs": "fabs", "log": "ln"}.get(word, word)
            return lambda n, v: getattr(n, name)(_bounded(inner(n, v)))
        raise NoExpression(f"unknown word {word}")

    def _argument(self) -> Value:
        r"""A group, or one letter or digit: ``\frac12`` is one half."""
        kind, word = self.peek()
        if kind == "number" and len(word) > 1 and word.isdecimal():
            self.tokens[self.at : self.at + 1] = [("number", digit) for digit in word]
        return self.atom()


def _plus(a: Value, b: Value, sign: int) -> Value:
    return lambda n, v: a(n, v) + sign * b(n, v)


def _times(a: Value, b: Value) -> Value:
    return lambda n, v: a(n, v) * b(n, v)


def _over(a: Value, b: Value) -> Value:
    return lambda n, v: a(n, v) / b(n, v)


def _power(a: Value, b: Value, sign: int) -> Value:
    return lambda n, v: a(n, v) ** (sign * _bounded(b(n, v)))


def _root(a: Value, b: Value) -> Value:
    return lambda n, v: n.root(a(n, v), int(_bounded(b(n, v))))


def _factorial(a: Value) -> Value:
    return lambda n, v: n.factorial(_bounded(a(n, v)))


def _binomial(a: Value, b: Value) -> Value:
    return lambda n, v: n.binomial(_bounded(a(n, v)), _bounded(b(n, v)))


def _bounded(value: Any) -> Any:
    if abs(value) > _LARGEST:
        raise NoExpression("too large to work out")
    return value
