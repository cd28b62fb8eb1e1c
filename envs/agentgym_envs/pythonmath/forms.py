"""The structures of answers: lists, sets, tuples, intervals, relations, matrices, ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Leaf:
    """A number, an expression or words."""

    text: str


@dataclass(frozen=True)
class Items:
    """Several forms: a list without brackets, a set, or what brackets enclose."""

    kind: Literal["list", "set", "(", "[", "mixed", "ratio"]
    items: tuple[Form, ...]
    brackets: str = ""
    """Both brackets, of an interval or a tuple."""


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; a determinant is not equal to its matrix."""

    rows: tuple[tuple[Form, ...], ...]
    determinant: bool


@dataclass(frozen=True)
class Relation:
    """Sides and the signs between them."""

    sides: tuple[Form, ...]
    signs: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """Between two ends; a point where they are the same and both belong to it."""

    low: str
    high: str
    closed_low: bool
    closed_high: bool


@dataclass(frozen=True)
class Union:
    """Intervals and points; ``excluded`` points are removed from the reals."""

    intervals: tuple[Interval, ...]
    excluded: tuple[Form, ...] = ()


@dataclass(frozen=True)
class Named:
    """A value with the name it is given: ``x = 5``, ``(x, y) = (1, 2)``, ``x ∈ [0, 1]``."""

    name: str
    value: Form


Form = Leaf | Items | Matrix | Relation | Union | Named


class NoForm(Exception):
    """The text is too large or deep."""


def as_union(form: Form) -> Union | None:
    """An interval or a set as a union; None if it is neither."""
    if isinstance(form, Union):
        return form
    if isinstance(form, Named):
        return as_union(form.value)
    if isinstance(form, Items) and form.brackets and len(form.items) == 2:
        low, high = form.items
        if isinstance(low, Leaf) and isinstance(high, Leaf):
            closed = form.brackets[0] == "[", form.brackets[1] == "]"
            return Union((Interval(low.text, high.text, *closed),))
    if isinstance(form, Items) and form.kind == "set":
        texts = [each.text for each in form.items if isinstance(each, Leaf)]
        if len(texts) == len(form.items):
            return Union(tuple(Interval(each, each, True, True) for each in texts))
    return None


def as_matrix(form: Form) -> Matrix | None:
    """Python's list of rows as a matrix."""
    if isinstance(form, Matrix):
        return form
    if isinstance(form, Items) and form.kind == "[":
        rows = [row.items for row in form.items if isinstance(row, Items) and row.kind == "["]
        if len(rows) == len(form.items):
            return Matrix(tuple(rows), False)
    return None
