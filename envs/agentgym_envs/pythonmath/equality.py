"""Whether two answers that were read into structures are equal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from agentgym_envs.pythonmath.forms import (
    Form,
    Interval,
    Items,
    Leaf,
    Matrix,
    Named,
    Relation,
    Union,
    as_matrix,
    as_union,
)
from agentgym_envs.pythonmath.texts import equal_leaves, equal_texts
from agentgym_envs.pythonmath.units import measured
from agentgym_envs.pythonmath.values import number, proportional

_T = TypeVar("_T")


def equal(one: Form, other: Form) -> bool:
    """The same answer, whatever its notation."""
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
    return equal_leaves(measured(one.text), measured(other.text))


def _equal_named(one: Form, other: Form) -> bool:
    if isinstance(one, Named) and isinstance(other, Named):
        names = [re.sub(r"[\s{}\\]", "", each.name) for each in (one, other)]
        functions = [name == "y" or "(" in name for name in names]
        if all(names) and names[0].casefold() != names[1].casefold() and not all(functions):
            return False
        return equal(one.value, other.value)
    if isinstance(one, Relation) or isinstance(other, Relation):
        return _equal_relations(_equation_of(one), _equation_of(other))
    return equal(
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
            return equal(form.items[0], leaf)
    return False


def _ratio_is(one: Form, other: Form) -> bool:
    """``3:4`` is the fraction; a time of day is not."""
    for form, leaf in ((one, other), (other, one)):
        if isinstance(form, Items) and form.kind == "ratio" and isinstance(leaf, Leaf):
            texts = [each.text for each in form.items if isinstance(each, Leaf)]
            return (
                len(texts) == 2
                and not _time_like(texts)
                and equal_texts(f"({texts[0]})/({texts[1]})", leaf.text)
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
    if all(map(equal_texts, ours, theirs)):
        return True
    if _time_like(ours) or _time_like(theirs):
        return False
    return all(
        equal_texts(f"({a})*({theirs[0]})", f"({b})*({ours[0]})")
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
    return _matched(ours, theirs, equal)


def _in_order(ours: tuple[Form, ...], theirs: tuple[Form, ...]) -> bool:
    return len(ours) == len(theirs) and all(map(equal, ours, theirs))


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
        and equal_texts(one.low, other.low)
        and equal_texts(one.high, other.high)
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
            if all(equal_texts(a, b) for a, b in zip(one.texts, texts, strict=True)):
                return True
            if len(texts) == 2 and proportional(one.texts, texts, signs):
                return True
    return False
