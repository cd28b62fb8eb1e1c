r"""Whether two answers mean the same, by their value; nothing a model wrote is ever executed.

An answer is a list of expressions in plain or LaTeX notation. Two expressions are equal where they
agree to 400 digits, with fixed numbers for their letters: exact for numbers, and for identities as
good as certain. What is no expression (a name, a base, a matrix) must be the same text.

Differs from graders that hand answers to a computer algebra system: those evaluate text as code,
take unbounded time for ``9^{9^{9^9}}``, or guard against it with signals, which threads cannot use.
"""

from __future__ import annotations

import re
import threading
from hashlib import blake2b
from typing import Any

from agentgym_envs.pythonmath.expressions import LONGEST, NoExpression, parse

_DIGITS = 500
"""Precision of evaluation; agreement is asked for 100 fewer."""
_local = threading.local()

_REPLACED = (
    (r"\\(?:left|right|big|Big|displaystyle|limits)(?![a-zA-Z])", ""),
    (r"\\[,;:!> ]|~|\\q?quad(?![a-zA-Z])", " "),
    (r"\\[dt]frac", r"\\frac"),
    (r"\^\s*\{?\s*\\circ\s*\}?|°", ""),
    (r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}", r" \1 "),
    (r"\\?%|\\?\$", ""),
    (r"\\[({\[]|\\[)}\]]", lambda match: match[0][1]),
    ("\u2212", "-"),
    ("\u03c0", r"\\pi "),
)
_RELATION = re.compile(r"^\s*[a-zA-Z](?:\([a-z]\))?\s*=\s*(?!=)")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")


def same(given: str, expected: str) -> bool:
    r"""Two answers mean the same.

    Args:
        given: What was answered, of any length and content.
        expected: The known answer.

    Examples:
        >>> same("0.5", r"\frac{1}{2}"), same("1,234", "1234"), same("x = 2", "2")
        (True, True, True)
        >>> same("0.333", "1/3"), same("(1, 2)", "(2, 1)"), same("2, 1", "1, 2")
        (False, False, True)
    """
    one, other = plain(given), plain(expected)
    if not one or len(given) > LONGEST:
        return False
    if _squeezed(one) == _squeezed(other):
        return True
    one, other = _RELATION.sub("", one), _RELATION.sub("", other)
    (left, ours, right), (open_, theirs, close) = _listed(one), _listed(other)
    if (left, right, len(ours)) != (open_, close, len(theirs)):
        return False
    if left in ("", "{"):
        return _matched(ours, theirs)
    return all(map(_equal, ours, theirs))


def plain(answer: str) -> str:
    """An answer without its dress: boxes, dollars, units of text, spacing commands."""
    text = answer[: LONGEST + 1].strip().strip("$").strip()
    box = text.rfind("\\boxed{")
    if box >= 0 and text.endswith("}"):
        text = text[box + 7 : -1]
    # Braces of a set are told from those of a group before both look alike.
    text = text.replace("\\{", "\\lbrace ").replace("\\}", "\\rbrace ")
    for pattern, replacement in _REPLACED:
        text = re.sub(pattern, replacement, text)
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return text.strip().rstrip(".").strip()


def _squeezed(text: str) -> str:
    """Without case and blanks, but for those that keep two numbers apart."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text).casefold()


def _listed(text: str) -> tuple[str, list[str], str]:
    """Brackets around a list, and its items; a single item in round ones is just an expression."""
    text = text.strip()
    if text.startswith("\\lbrace") and text.endswith("\\rbrace"):
        return "{", _items(text[7:-7]), "}"
    left, inner, right = text[:1], text[1:-1], text[-1:]
    if left in "([" and right in ")]" and left and right and _balanced(inner):
        items = _items(inner)
        if len(items) > 1:
            return left, items, right
    return "", _items(text), ""


def _balanced(text: str) -> bool:
    depth = 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if depth < 0:
            return False
    return depth == 0


def _items(text: str) -> list[str]:
    """The parts between commas, and between the word "and", outside of brackets."""
    items, depth = [""], 0
    for letter in re.sub(r"\band\b", ",", text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return [item for both in items for item in _signs(both.strip())]


def _signs(item: str) -> list[str]:
    r"""Both readings of a ``\pm``."""
    return [item.replace("\\pm", sign) for sign in "+-"] if "\\pm" in item else [item]


def _matched(ours: list[str], theirs: list[str]) -> bool:
    """Each item has its partner, in any order."""
    left = list(theirs)
    for item in ours:
        partner = next((other for other in left if _equal(item, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


def _equal(one: str, other: str) -> bool:
    if _squeezed(one) == _squeezed(other):
        return True
    numbers = _numbers()
    try:
        first, second = parse(one), parse(other)
        if first.letters != second.letters:
            return False
        for point in range(2 if first.letters else 1):
            values = {name: _value(name, point) for name in first.letters}
            a, b = first.value(numbers, values), second.value(numbers, values)
            gap, size = abs(a - b), max(abs(a), abs(b), numbers.mpf(10) ** -50)
            # Not `>`: a difference that is no number is no agreement.
            if not gap <= size * numbers.mpf(10) ** (100 - _DIGITS):
                return False
    except (NoExpression, ArithmeticError, ValueError, TypeError, RecursionError):
        return False
    return True


def _value(name: str, point: int) -> Any:
    """A number between 1 and 2 that stands for a letter."""
    digest = blake2b(f"{name}{point}".encode(), digest_size=16).digest()
    return 1 + _numbers().mpf(int.from_bytes(digest, "big")) / 2**128


def _numbers() -> Any:
    """This thread's arithmetic; mpmath's own is shared by all threads, precision included."""
    found = getattr(_local, "numbers", None)
    if found is None:
        from mpmath import MPContext

        found = _local.numbers = MPContext()
        found.dps = _DIGITS
    return found
