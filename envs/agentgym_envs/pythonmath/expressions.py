r"""Expressions in plain, Python and LaTeX notation, parsed into functions of their letters.

Grammar, loosest first: sums; products, also by juxtaposition; signs; powers; factorials; atoms:
numbers, letters, ``\pi``, ``\frac{a}{b}``, ``\sqrt[n]{x}``, ``\binom{n}{k}``, functions, groups.
A single small ``e`` and ``i`` are Euler's number and the imaginary unit; ``∞`` is a letter.
An integer before a fraction of integers is a mixed number. A function without brackets applies to
the product that follows.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from agentgym_envs.pythonmath import operations as op
from agentgym_envs.pythonmath.arithmetic import NoExpression
from agentgym_envs.pythonmath.cursor import Cursor
from agentgym_envs.pythonmath.lexer import FUNCTIONS, GREEK, Token, tokens
from agentgym_envs.pythonmath.operations import Value

_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot"}
_OPAQUE = "fgFG"
"""Letters that name a function before a bracket."""


class Expression(NamedTuple):
    """A parsed expression."""

    value: Value
    letters: frozenset[str]
    imaginary: bool
    """The imaginary unit occurs."""


def parse(text: str) -> Expression:
    """Parse an expression.

    Raises:
        NoExpression: It is not one, or too long or deep.
    """
    reader = _Reader(tokens(text))
    value = reader.sum()
    if reader.peek() != ("", ""):
        raise NoExpression(f"left over: {reader.peek()[1]}")
    return Expression(value, frozenset(reader.letters), reader.imaginary)


class _Reader(Cursor):
    """Recursive descent; each method reads one level of the grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.letters: set[str] = set()
        self.imaginary = False
        self.bars = 0
        """Open ``|`` of absolute values."""

    def sum(self) -> Value:
        return self.nest(self._sum)

    def _sum(self) -> Value:
        value = self.product()
        while True:
            if self.take("+"):
                value = op.plus(value, self.product(), 1)
            elif self.take("-"):
                value = op.plus(value, self.product(), -1)
            else:
                return value

    def product(self) -> Value:
        value = self.signed()
        while True:
            if self.take("*") or self.word("cdot") or self.word("times"):
                value = op.times(value, self.signed())
            elif self.take("/") or self.word("div"):
                value = op.over(value, self.signed())
            elif self.starts_factor():
                # Two adjacent numbers are a typing error or a list, not a product.
                if self.peek()[0] == "number" and self.tokens[self.at - 1][0] == "number":
                    raise NoExpression("two numbers side by side")
                value = op.times(value, self.power())
            else:
                return value

    def starts_factor(self) -> bool:
        kind, text = self.peek()
        if kind == "word":
            return text not in ("cdot", "times", "div")
        opens = ("(", "{", "⌊", "⌈") if self.bars else ("(", "{", "⌊", "⌈", "|")
        return kind in ("number", "letter") or text in opens

    def signed(self) -> Value:
        minus = False
        while self.peek() in (("sign", "-"), ("sign", "+")):
            minus ^= self.take("-") or not self.take("+")
        value = self.power()
        return op.negative(value) if minus else value

    def power(self) -> Value:
        value = self.factorial(self.atom())
        if self.take("°"):
            return value
        if self.take("^") or self.take("**"):
            value = op.power(value, self.nest(self.exponent))
        self.take("°")
        return value

    def factorial(self, value: Value) -> Value:
        while self.take("!"):
            value = op.call("factorial", value)
        return value

    def exponent(self) -> Value:
        minus = False
        while self.peek() in (("sign", "-"), ("sign", "+")):
            minus ^= self.take("-") or not self.take("+")
        value = self.power()
        return op.negative(value) if minus else value

    def atom(self) -> Value:
        kind, text = self.peek()
        self.at += 1
        if kind == "number":
            return self._number(text)
        if kind == "letter":
            return self._letter(text)
        if kind == "word":
            return self._word(text)
        pairs = {"(": ")", "{": "}", "[": "]", "|": "|", "⌊": "⌋", "⌈": "⌉"}
        if kind == "sign" and text in pairs:
            self.bars += text == "|"
            value = self.sum()
            self.bars -= text == "|"
            self.need(pairs[text])
            named = {"|": "abs", "⌊": "floor", "⌈": "ceil"}.get(text, "")
            return op.call(named, value) if named else value
        raise NoExpression(f"unexpected {text or 'end'}")

    def _number(self, text: str) -> Value:
        if self.word("overline"):
            repeated = self._digits()
            if "." not in text:
                raise NoExpression("only decimals repeat")
            places = len(text.partition(".")[2])
            tail = Fraction(int(repeated), (10 ** len(repeated) - 1) * 10**places)
            return lambda n, v: n.add(n.number(text.rstrip(".")), tail)
        fraction = self._mixed(text)
        if fraction is not None:
            return fraction
        return lambda n, v: n.number(text)

    def _digits(self) -> str:
        self.need("{")
        kind, text = self.peek()
        self.at += 1
        self.need("}")
        if kind != "number" or not text.isdecimal():
            raise NoExpression("expected digits")
        return text

    def _mixed(self, text: str) -> Value | None:
        r"""``1\frac{4}{5}`` and ``1 4/5``; None if it is not a proper fraction."""
        before = self.tokens[self.at - 2] if self.at > 1 else ("", "")
        if not text.isdecimal() or before[1] in ("^", "**", "_") or before[0] in ("number", "word"):
            return None
        start = self.at
        parts: list[str] = []
        if self.word("frac"):
            for _ in range(2):
                braced = self.take("{")
                kind, part = self.peek()
                self.at += 1
                if kind == "number" and not braced and len(part) > 1:
                    self.tokens[self.at - 1 : self.at] = [("number", each) for each in part]
                    part = part[0]
                parts.append(part if kind == "number" else "")
                if braced and not self.take("}"):
                    parts.append("")
        elif self.peek()[0] == "number" and self.peek(1)[1] == "/" and self.peek(2)[0] == "number":
            parts = [self.peek()[1], self.peek(2)[1]]
            self.at += 3
        if len(parts) == 2 and all(each.isdecimal() for each in parts):
            top, bottom = (int(each) for each in parts)
            if top < bottom:
                return lambda n, v: n.add(n.number(text), Fraction(top, bottom))
        self.at = start
        return None

    def _letter(self, text: str) -> Value:
        name = text + self._subscript()
        while self.take("'"):
            name += "'"
        if name in _OPAQUE and self.peek() == ("sign", "("):
            self.at += 1
            inner = self.sum()
            self.need(")")
            return op.opaque(name, inner)
        if name == "e":
            return lambda n, v: n.constant("e")
        if name == "i":
            self.imaginary = True
            return lambda n, v: n.constant("i")
        self.letters.add(name)
        return lambda n, v: v[name]

    def _subscript(self) -> str:
        if not self.take("_"):
            return ""
        if not self.take("{"):
            self.at += 1
            return f"_{self.tokens[self.at - 1][1]}" if self.at <= len(self.tokens) else "_"
        parts = ""
        while not self.take("}"):
            if self.peek() == ("", ""):
                raise NoExpression("expected }")
            parts += self.peek()[1]
            self.at += 1
        return f"_{parts}"

    def _word(self, word: str) -> Value:
        if word == "pi":
            return lambda n, v: n.constant("pi")
        if word in GREEK:
            return self._letter(word)
        if word == "frac":
            return op.over(self._argument(), self._argument())
        if word in ("binom", "dbinom", "tbinom"):
            return op.binomial(self._argument(), self._argument())
        if word == "binomial":
            self.need("(")
            first = self.sum()
            self.need(",")
            second = self.sum()
            self.need(")")
            return op.binomial(first, second)
        if word in ("sqrt", "cbrt"):
            root: Value = lambda n, v: Fraction(2 if word == "sqrt" else 3)  # noqa: E731
            if self.take("["):
                root = self.sum()
                self.need("]")
            return op.root(self._argument(), root)
        if word in FUNCTIONS:
            return self._function(FUNCTIONS[word])
        raise NoExpression(f"unknown word {word}")

    def _function(self, name: str) -> Value:
        base: Value | None = None
        power: Value | None = None
        if name in ("ln", "lg") and self.take("_"):
            base = self._argument()
        if self.take("^"):
            if [self.peek(k)[1] for k in range(4)] == ["{", "-", "1", "}"] and name in _INVERSES:
                self.at, name = self.at + 4, _INVERSES[name]
            else:
                power = self._argument()
        if self.take("("):
            inner = self.sum()
            if self.take(","):
                base = self.sum()
            self.need(")")
            inner, degrees = self.factorial(inner), False
        else:
            inner, degrees = self._bare_argument()
        if name == "lg":
            name, base = "ln", base or (lambda n, v: Fraction(10))
        value = op.call(name, op.degrees(inner) if degrees else inner)
        if base is not None:
            value = op.over(value, op.call(name, base))
        return value if power is None else op.power(value, power)

    def _bare_argument(self) -> tuple[Value, bool]:
        """The product after a function without brackets; whether it is in degrees."""
        minus = self.take("-")
        value = self.power()
        degrees = self.tokens[self.at - 1] == ("sign", "°")
        while not degrees and (self.peek()[0] in ("number", "letter") or self._plain_word()):
            value = op.times(value, self.power())
            degrees = self.tokens[self.at - 1] == ("sign", "°")
        return (op.negative(value) if minus else value), degrees

    def _plain_word(self) -> bool:
        kind, text = self.peek()
        return kind == "word" and (text in ("pi", "frac", "sqrt") or text in GREEK)

    def _argument(self) -> Value:
        r"""A group, or one letter or digit: ``\frac12`` is one half."""
        kind, word = self.peek()
        if kind == "number" and len(word) > 1 and word.isdecimal():
            self.tokens[self.at : self.at + 1] = [("number", digit) for digit in word]
            kind, word = self.peek()
        if kind == "number":
            self.at += 1
            return lambda n, v: n.number(word)
        return self.atom()
