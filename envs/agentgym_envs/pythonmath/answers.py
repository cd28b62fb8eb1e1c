r"""Whether two answers are equal by value; nothing that a model wrote is ever executed.

An answer is cleaned (``notation.py``), read into a structure (``forms.py``), and its expressions
are compared (``arithmetic.py``): rationals exactly, other numbers to more digits than their size
and length need, and expressions with letters at several points. What is not an expression (a
name, a word) must be the same text.

Differs from graders that use a computer algebra system: those evaluate text as code, take
unbounded time for ``9^{9^{9^9}}``, or guard against it with signals, which threads cannot use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeVar

from agentgym_envs.pythonmath.arithmetic import NoExpression
from agentgym_envs.pythonmath.expressions import parse
from agentgym_envs.pythonmath.forms import (
    Form,
    Interval,
    Items,
    Leaf,
    Matrix,
    Named,
    NoForm,
    Relation,
    Union,
    as_matrix,
    as_union,
)
from agentgym_envs.pythonmath.lexer import MAX_CHARACTERS
from agentgym_envs.pythonmath.notation import plain
from agentgym_envs.pythonmath.structure import choice, read, readings
from agentgym_envs.pythonmath.units import Measured, measured
from agentgym_envs.pythonmath.values import equal_expressions, number, proportional

_T = TypeVar("_T")
_FAILURES = (NoExpression, NoForm, ArithmeticError, ValueError, TypeError, RecursionError)


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
    except _FAILURES:
        return False


def _same_reading(one: str, other: str, *, first: bool) -> bool:
    if not first:
        # The less likely reading of a known answer: a list, the items of which are written apart.
        return "," in other and _squeezed(one.replace(", ", ",")) == _squeezed(other)
    if _squeezed(one) == _squeezed(other):
        return True
    (label, one), (other_label, other) = _labelled(one), _labelled(other)
    if label and other_label and label != other_label:
        return False
    if not one or not other:
        return label == other_label != ""
    return _equal(read(one), read(other))


def _labelled(text: str) -> tuple[str, str]:
    """The letter of a choice, and the rest."""
    return choice(text) or ("", text)


def _squeezed(text: str) -> str:
    """Without case and blanks, except for blanks between numbers."""
    text = text.replace("⦃", "{").replace("⦄", "}")
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])", "*", text).replace("\\", "")
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text).casefold()


def _equal(one: Form, other: Form) -> bool:
    if isinstance(one, Named) or isinstance(other, Named):
        return _equal_named(one, other)
    if isinstance(one, Union) or isinstance(other, Union):
        a, b = as_union(one), as_union(other)
        return a is not None and b is not None and _equal_unions(a, b)
    if isinstance(one, Matrix) or isinstance(other, Matrix):
        m, n = as_matrix(one), as_matrix(other)
        return m is not None and n is not None and _equal_matrices(m, n)
    if isinstance(one, Relation) or isinstance(other, Relation):
        return _equal_relations(one, other)
    if isinstance(one, Items) or isinstance(other, Items):
        return _equal_items(one, other)
    return _equal_leaves(measured(one.text), measured(other.text))


def _equal_named(one: Form, other: Form) -> bool:
    if isinstance(one, Named) and isinstance(other, Named):
        names = [re.sub(r"[\s{}\\]", "", each.name) for each in (one, other)]
        functions = [name == "y" or "(" in name for name in names]
        if all(names) and names[0].casefold() != names[1].casefold() and not all(functions):
            return False
        return _equal(one.value, other.value)
    if isinstance(one, Relation) or isinstance(other, Relation):
        return _equal_relations(_equation_of(one), _equation_of(other))
    return _equal(
        one.value if isinstance(one, Named) else one,
        other.value if isinstance(other, Named) else other,
    )


def _equation_of(form: Form) -> Form:
    if isinstance(form, Named) and isinstance(form.value, Leaf):
        texts = (form.name, form.value.text)
        return Relation((Leaf(texts[0]), form.value), "=", texts)
    return form


def _equal_items(one: Form, other: Form) -> bool:
    if not isinstance(one, Items) or not isinstance(other, Items):
        return _ratio_is(one, other) or _single(one, other)
    if "ratio" in (one.kind, other.kind):
        return one.kind == other.kind and _equal_ratios(one, other)
    if len(one.items) != len(other.items):
        return _single(one, other)
    kinds = {one.kind, other.kind}
    if kinds <= {"list", "set"}:
        return _equal_lists(one.items, other.items)
    # Brackets of three or more cannot be an interval.
    if kinds & {"list", "set"} and len(one.items) > 2 and "mixed" not in kinds:
        return _in_order(one.items, other.items)
    return one.brackets == other.brackets and _in_order(one.items, other.items)


def _single(one: Form, other: Form) -> bool:
    """A set or list of one item is that item."""
    for form, leaf in ((one, other), (other, one)):
        if isinstance(form, Items) and form.kind in ("set", "list", "[") and len(form.items) == 1:
            return _equal(form.items[0], leaf)
    return False


def _ratio_is(one: Form, other: Form) -> bool:
    """``3:4`` is the fraction; a time of day is not."""
    for form, leaf in ((one, other), (other, one)):
        if isinstance(form, Items) and form.kind == "ratio" and isinstance(leaf, Leaf):
            texts = [each.text for each in form.items if isinstance(each, Leaf)]
            return (
                len(texts) == 2
                and not _time_like(texts)
                and _equal_texts(f"({texts[0]})/({texts[1]})", leaf.text)
            )
    return False


def _time_like(texts: Sequence[str]) -> bool:
    """Hours and minutes that are not in lowest terms."""
    if not all(text.isdecimal() for text in texts):
        return False
    hours, minutes = texts[:2]
    return len(minutes) == 2 and int(minutes) < 60 and int(hours) < 25 and minutes != "01"


def _equal_ratios(one: Items, other: Items) -> bool:
    ours = [each.text for each in one.items if isinstance(each, Leaf)]
    theirs = [each.text for each in other.items if isinstance(each, Leaf)]
    if len(ours) != len(theirs):
        return False
    if all(map(_equal_texts, ours, theirs)):
        return True
    if _time_like(ours) or _time_like(theirs):
        return False
    return all(
        _equal_texts(f"({a})*({theirs[0]})", f"({b})*({ours[0]})")
        for a, b in zip(ours[1:], theirs[1:], strict=True)
    )


def _equal_lists(ours: tuple[Form, ...], theirs: tuple[Form, ...]) -> bool:
    """In any order; items with different names are compared by name."""
    named = [[f.name for f in forms if isinstance(f, Named)] for forms in (ours, theirs)]
    for forms, names, others in ((ours, named[0], theirs), (theirs, named[1], ours)):
        if len(names) == len(forms) > 1 and len(set(names)) == len(names):
            if any(isinstance(each, Named) for each in others):
                break
            # `x = 1, y = 2` against `1, 2`: in the order of the names.
            ordered = sorted(forms, key=lambda f: f.name if isinstance(f, Named) else "")
            return _in_order(tuple(ordered), others)
    return _matched(ours, theirs, _equal)


def _in_order(ours: tuple[Form, ...], theirs: tuple[Form, ...]) -> bool:
    return len(ours) == len(theirs) and all(map(_equal, ours, theirs))


def _matched(ours: Sequence[_T], theirs: Sequence[_T], equal: Callable[[_T, _T], bool]) -> bool:
    """Each item has its partner, in any order."""
    left = list(theirs)
    for item in ours:
        partner = next((other for other in left if equal(item, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def _equal_matrices(one: Matrix, other: Matrix) -> bool:
    return (
        one.determinant == other.determinant
        and len(one.rows) == len(other.rows)
        and all(map(_in_order, one.rows, other.rows))
    )


def _equal_unions(one: Union, other: Union) -> bool:
    if one.excluded or other.excluded:
        one, other = _expanded(one), _expanded(other)
    return _matched(one.intervals, other.intervals, _equal_intervals)


def _expanded(union: Union) -> Union:
    """The reals without some points as intervals between them."""
    if not union.excluded:
        return union
    texts = [each.text for each in union.excluded if isinstance(each, Leaf)]
    ends = ["-∞", *sorted(texts, key=number), "∞"]
    return Union(tuple(Interval(a, b, False, False) for a, b in pairwise(ends)))


def _equal_intervals(one: Interval, other: Interval) -> bool:
    return (
        one.closed_low == other.closed_low
        and one.closed_high == other.closed_high
        and _equal_texts(one.low, other.low)
        and _equal_texts(one.high, other.high)
    )


def _equal_relations(one: Form, other: Form) -> bool:
    if not isinstance(one, Relation) or not isinstance(other, Relation):
        return False
    flipped = str.maketrans("<>≤≥", "><≥≤")
    for texts, signs in (
        (other.texts, other.signs),
        (other.texts[::-1], other.signs[::-1].translate(flipped)),
    ):
        if one.signs == signs and len(one.texts) == len(texts):
            if all(_equal_texts(a, b) for a, b in zip(one.texts, texts, strict=True)):
                return True
            if len(texts) == 2 and proportional(one.texts, texts, signs):
                return True
    return False


def _equal_leaves(one: Measured, other: Measured) -> bool:
    """Quantities; a unit or a percent sign on one side alone is dress.

    A percentage is also its fraction of one, but a number without a sign is not a percentage of
    less than one.
    """
    if one.unit and other.unit and one.unit != other.unit:
        return False
    if one.percent == other.percent:
        return _equal_texts(one.value, other.value)
    hundredth = partial("({0})/100".format)
    if other.percent:
        return _equal_texts(one.value, other.value) or _equal_texts(
            one.value, hundredth(other.value)
        )
    if _equal_texts(hundredth(one.value), other.value):
        return True
    return _equal_texts(one.value, other.value) and abs(number(one.value)) >= 1


def _equal_texts(one: str, other: str) -> bool:
    """Expressions of the same value, or the same words."""
    if _squeezed(one) == _squeezed(other):
        return True
    if re.search(r"[=<>≤≥≠∈]", one + other):
        return False
    one, other = _based(one), _based(other)
    if one.startswith("base") or other.startswith("base"):
        return one == other
    try:
        first, second = parse(one), parse(other)
    except _FAILURES:
        return False
    return equal_expressions(first, second, len(one) + len(other))


def _based(text: str) -> str:
    """A number in another base than ten: ``52_8`` is neither 52 nor 42."""
    found = re.fullmatch(r"\(?([0-9A-Fa-f]+)\)?\s*_\s*\{?(?:\\text)?\s*(\d+)\s*\}?", text.strip())
    if found and not (found[1][0].isalpha() and len(found[1]) == 1):
        return f"base {found[2]}: {found[1].upper()}"
    return text
