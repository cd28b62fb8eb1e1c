"""Generated problems with exact answers: five kinds, five levels of difficulty.

Each problem has a program that solves it by another method than the generator's, where there is
one: by search or simulation instead of a formula.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

NUMBERS = {"train": range(8000), "valid": range(8000, 8500), "test": range(8500, 9000)}
"""Problem numbers of each split."""
_SHARES = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}
"""Tenths of all questions per split, by hash, so that no two splits share a question."""


class Problem(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str
    kind: str
    program: str = ""
    """Python whose last expression is the answer; empty where none is known."""


def generate(kind: str, difficulty: int, number: int) -> Problem:
    """The problem of a number.

    Args:
        kind: One of ``KINDS``.
        difficulty: 1 to 5: more and larger numbers, more steps.
        number: One of ``NUMBERS``; each always gives the same problem.
    """
    share = next(_SHARES[split] for split, numbers in NUMBERS.items() if number in numbers)
    draw = _Draw(np.random.default_rng([number, difficulty, list(KINDS).index(kind)]))
    while True:
        question, answer, program = KINDS[kind](difficulty, draw)
        if blake2b(question.encode()).digest()[0] % 10 in share:
            return Problem(question, str(answer), kind, program)


class _Draw:
    """Random draws as Python integers, which do not overflow."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def one(self, *options: str) -> str:
        return options[self(0, len(options) - 1)]


Generated = tuple[str, object, str]
"""Question, answer, program."""


def _arithmetic(level: int, draw: _Draw) -> Generated:
    """An expression of integers; with divisions from level 3 on."""
    high = 10 ** (level + 1)
    text, value = str(first := draw(high // 10, high)), Fraction(first)
    for _ in range(level + 1):
        sign = draw.one("+", "-", "*", "/") if level >= 3 else draw.one("+", "-", "*")
        other = draw(2, high // 10 if sign in "*/" else high)
        text = f"({text} {sign} {other})"
        value = {
            "+": lambda a, b: a + b,
            "-": lambda a, b: a - b,
            "*": lambda a, b: a * b,
            "/": lambda a, b: a / b,
        }[sign](value, Fraction(other))
    text = text[1:-1]
    ask = "Give the exact value, as a fraction in lowest terms if it is no integer."
    exact = _fractions(text)
    return f"Compute {text}. {ask}", value, f"from fractions import Fraction\nprint({exact})"


def _fractions(text: str) -> str:
    """The expression in exact fractions: its first number is one, so the result is."""
    opening = len(text) - len(text.lstrip("("))
    first, _, rest = text[opening:].partition(" ")
    return f"{text[:opening]}Fraction({first}) {rest}"


def _number_theory(level: int, draw: _Draw) -> Generated:
    high = 10 ** (level + 2)
    which = draw(0, 3)
    if which == 0:
        common = draw(2, 10**level)
        a, b = common * draw(10, high // 10), common * draw(10, high // 10)
        question = f"What is the greatest common divisor of {a} and {b}?"
        return question, math.gcd(a, b), f"a, b = {a}, {b}\nwhile b:\n    a, b = b, a % b\na"
    if which == 1:
        base, exponent, modulus = draw(2, high), draw(10, high), draw(11, high)
        question = f"What is the remainder when {base}^{exponent} is divided by {modulus}?"
        return question, pow(base, exponent, modulus), f"pow({base}, {exponent}, {modulus})"
    if which == 2:
        n = draw(10 * high, 100 * high)
        count = math.prod(power + 1 for power in _factors(n).values())
        program = f"from sympy import divisors\nlen(divisors({n}))"
        return f"How many positive divisors does {n} have?", count, program
    primes = [7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83]
    moduli = [primes.pop(draw(0, len(primes) - 1)) for _ in range(2 + level // 2)]
    solution = draw(0, math.prod(moduli) - 1)
    parts = [f"{solution % modulus} when divided by {modulus}" for modulus in moduli]
    question = (
        f"What is the smallest non-negative integer that leaves remainder "
        f"{', remainder '.join(parts[:-1])}, and remainder {parts[-1]}?"
    )
    rests = [solution % modulus for modulus in moduli]
    program = f"from sympy.ntheory.modular import crt\nint(crt({moduli}, {rests})[0])"
    return question, solution, program


def _factors(n: int) -> Counter[int]:
    found: Counter[int] = Counter()
    prime = 2
    while prime * prime <= n:
        while n % prime == 0:
            found[prime] += 1
            n //= prime
        prime += 1
    if n > 1:
        found[n] += 1
    return found


def _algebra(level: int, draw: _Draw) -> Generated:
    high = 20 + 10 * level
    if draw(0, 1):
        roots = sorted({draw(-high, high) for _ in range(level + 1)} | {draw(1, high)})
        coefficients = [int(c) for c in _expand(roots)]
        powers = range(len(coefficients) - 1, -1, -1)
        shown = " + ".join(
            f"({c})x^{power}" if power else f"({c})"
            for c, power in zip(coefficients, powers, strict=True)
            if c
        )
        program = f"from sympy import roots\nmax(roots({coefficients}))"
        return f"What is the largest real solution of {shown} = 0?", max(roots), program
    size = min(2 + level // 2, 4)
    while True:
        rows = [[draw(-high, high) for _ in range(size)] for _ in range(size)]
        if round(float(np.linalg.det(np.array(rows, float)))) != 0:
            break
    values = [draw(-high, high) for _ in range(size)]
    names = "xyzw"[:size]
    equations = []
    for row in rows:
        left = " + ".join(f"({c}){name}" for c, name in zip(row, names, strict=True))
        equations.append(f"{left} = {sum(c * v for c, v in zip(row, values, strict=True))}")
    rights = [sum(c * v for c, v in zip(row, values, strict=True)) for row in rows]
    program = f"from sympy import Matrix\nsum(Matrix({rows}).LUsolve(Matrix({rights})))"
    question = f"Given {'; '.join(equations)}: what is {' + '.join(names)}?"
    return question, sum(values), program


def _expand(roots: list[int]) -> list[int]:
    """Coefficients of the product of all (x - root), highest power first."""
    found = [1]
    for root in roots:
        found = [a - root * b for a, b in zip([*found, 0], [0, *found], strict=True)]
    return found


def _counting(level: int, draw: _Draw) -> Generated:
    which = draw(0, 3)
    if which == 0:
        women, men = draw(10, 60 + 40 * level), draw(10, 60 + 40 * level)
        k = draw(2, 2 + 2 * level)
        kept = draw(1, k - 1)
        answer = math.comb(women, kept) * math.comb(men, k - kept)
        question = (
            f"In how many ways can a committee of {k} with exactly {kept} women be chosen "
            f"from {women} women and {men} men?"
        )
        program = f"from sympy import binomial as c\nc({women}, {kept}) * c({men}, {k - kept})"
        return question, answer, program
    if which == 1:
        letters = "ABCDEFGH"[: 3 + level]
        word = "".join(draw.one(*letters) for _ in range(7 + 2 * level))
        fixed = draw.one(*sorted(set(word)))
        rest = Counter(word.replace(fixed, "", 1))
        answer = math.factorial(len(word) - 1) // math.prod(map(math.factorial, rest.values()))
        question = f"How many arrangements of the letters of {word} begin with {fixed}?"
        program = (
            f"from math import factorial\nfrom collections import Counter\n"
            f"n = factorial({len(word) - 1})\n"
            f"for c in Counter({word!r}.replace({fixed!r}, '', 1)).values():\n"
            f"    n //= factorial(c)\nn"
        )
        return question, answer, program
    if which == 2:
        size = 10 ** min(level + 1, 5)
        n, a, b = draw(size, 10 * size), draw(2, 20), draw(21, 60)
        answer = n // a + n // b - n // math.lcm(a, b)
        question = f"How many integers from 1 to {n} are divisible by {a} or by {b}?"
        program = f"sum(1 for i in range(1, {n} + 1) if i % {a} == 0 or i % {b} == 0)"
        return question, answer, program
    east, north = draw(3, 20 + 4 * level), draw(3, 20 + 4 * level)
    x, y = draw(1, east - 1), draw(1, north - 1)
    through = math.comb(x + y, x) * math.comb(east - x + north - y, east - x)
    answer = math.comb(east + north, east) - through
    question = (
        f"How many shortest paths lead from (0, 0) to ({east}, {north}) by unit steps right or up, "
        f"without passing through ({x}, {y})?"
    )
    program = (
        f"from functools import cache\n@cache\ndef f(a, b):\n"
        f"    if (a, b) == ({x}, {y}) or a < 0 or b < 0:\n        return 0\n"
        f"    return 1 if (a, b) == (0, 0) else f(a - 1, b) + f(a, b - 1)\nf({east}, {north})"
    )
    return question, answer, program


def _word_problem(level: int, draw: _Draw) -> Generated:
    """Changes of a stock of items; the program follows the same steps."""
    who = draw.one("Ada", "Bo", "Chen", "Dina", "Emil", "Farah", "Goro", "Hana")
    what = draw.one("apples", "stamps", "marbles", "books", "coins", "shells")
    stock = Fraction(draw(10, 50 * 10**level))
    lines = [f"{who} has {stock} {what}."]
    program = [f"from fractions import Fraction as F\nn = F({stock})"]
    for _ in range(level + 1):
        step = draw(0, 3)
        if step == 0:
            boxes, each = draw(2, 9 * level), draw(2, 12 * level)
            lines.append(f"{who} buys {boxes} boxes with {each} {what} in each.")
            stock += boxes * each
            program.append(f"n += {boxes} * {each}")
        elif step == 1:
            parts = draw(2, 9)
            given = int(stock) // parts
            lines.append(
                f"{who} shares as many as possible equally among {parts} friends, keeping only "
                f"what is left over, and then gets back half of what was given away, rounded down."
            )
            stock = stock - given * parts + (given * parts) // 2
            program.append(f"g = n // {parts} * {parts}\nn = n - g + g // 2")
        elif step == 2:
            percent = 5 * draw(1, 19)
            lines.append(f"{who} then gives away {percent} percent, rounded down.")
            stock -= stock * percent // 100
            program.append(f"n -= n * {percent} // 100")
        else:
            times = draw(2, 3)
            lines.append(f"The number of {what} then grows to {times} times what it was.")
            stock *= times
            program.append(f"n *= {times}")
    price = draw(3, 99)
    lines.append(f"In the end all {what} are sold for {price} cents each. How many cents is that?")
    return " ".join(lines), stock * price, "\n".join([*program, f"print(n * {price})"])


KINDS: dict[str, Callable[[int, _Draw], Generated]] = {
    "arithmetic": _arithmetic,
    "number_theory": _number_theory,
    "algebra": _algebra,
    "counting": _counting,
    "word_problem": _word_problem,
}
"""Generators by kind."""
