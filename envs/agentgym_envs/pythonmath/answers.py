r"""Whether two answers are equal by value; nothing that a model wrote is ever executed.

An answer is cleaned (``notation.py``) and read into a structure (``structure.py``). Structures are
compared (``equality.py``), and in them texts (``texts.py``) and values (``values.py``): rationals
exactly, other numbers to more digits than their size and length need, and expressions with letters
at several points. What is not an expression (a name, a word) must be the same text.

Differs from graders that use a computer algebra system: those evaluate text as code, take
unbounded time for ``9^{9^{9^9}}``, or guard against it with signals, which threads cannot use.
"""

from __future__ import annotations

from agentgym_envs.pythonmath.equality import equal
from agentgym_envs.pythonmath.lexer import MAX_CHARACTERS
from agentgym_envs.pythonmath.notation import plain
from agentgym_envs.pythonmath.structure import choice, read, readings
from agentgym_envs.pythonmath.texts import FAILURES, squeezed


def same(given: str, expected: str) -> bool:
    r"""Two answers are equal.

    Args:
        given: The answer, of any length and content.
        expected: The known answer.

    Examples:
        >>> same("0.5", r"\frac{1}{2}"), same("1,234", "1234"), same("x = 2", "2")
        (True, True, True)
        >>> same("0.333", "1/3"), same("(1, 2)", "(2, 1)"), same("2, 1", "1, 2")
        (False, False, True)
    """
    if len(given) > MAX_CHARACTERS or not given.strip():
        return False
    try:
        ours, theirs = plain(given), plain(expected)
        if not ours or not theirs:
            return False
        return any(
            _same_reading(one, other, first=place == 0)
            for one in readings(ours)
            for place, other in enumerate(readings(theirs))
        )
    except FAILURES:
        return False


def _same_reading(one: str, other: str, *, first: bool) -> bool:
    if not first:
        # The less likely reading of a known answer: a list, the items of which are written apart.
        return "," in other and squeezed(one.replace(", ", ",")) == squeezed(other)
    if squeezed(one) == squeezed(other):
        return True
    (label, one), (other_label, other) = _labelled(one), _labelled(other)
    if label and other_label and label != other_label:
        return False
    if not one or not other:
        return label == other_label != ""
    return equal(read(one), read(other))


def _labelled(text: str) -> tuple[str, str]:
    """The letter of a choice, and the rest."""
    return choice(text) or ("", text)
