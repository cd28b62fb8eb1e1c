"""Reading the structure of an answer from its text."""

from __future__ import annotations

import re
from typing import Literal

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
    as_union,
)
from agentgym_envs.pythonmath.notation import ROW
from agentgym_envs.pythonmath.splitting import (
    CLOSING,
    MAX_ITEMS,
    OPENING,
    balanced,
    both_signs,
    separate,
    split,
)

_RELATIONS = "=<>≤≥≠∈"
_MAX_DEPTH = 8
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
# No quantifier of a quantifier: what a model wrote must not make matching exponential.
_NAME = re.compile(
    r"^(?:[a-zA-Z]|\\[a-zA-Z]+)(?:\s*_\s*(?:\w|\{[^{}]*\}))?\s*'*(?:\s*\([\w\s,\\]+\))?$"
)
_COMPOUND_NAME = re.compile(
    r"^(?:\\?(?:sin|cos|tan|cot|angle|triangle|overline|overrightarrow|log|ln)(?![a-zA-Z])"
    r"[\s{]*[a-zA-Z\\_\s]+\}?|[A-Z]{2,3}(?:\s*\^\s*\{?2\}?)?"
    r"|\|\s*(?:[a-zA-Z]{1,2}|\\over\w+\s*\{\s*\w+\s*\})\s*\||[A-Z]\s*(?:\\cap|∪)\s*[A-Z]"
    r"|[A-Z]_?\{?\s*\d+\s*\}?(?:\s*\^\s*\{?\s*\d+\s*\}?)?)$"
)
_CHOICE = re.compile(r"^(?:\(([A-H])\)\s*[.:]?|([A-H])\s*[.:)])\s*([^-+*/^=!\s].*)$")
_LETTER_CHOICE = re.compile(r"^\(?\s*([A-H])\s*\)?\.?$")


def choice(text: str) -> tuple[str, str] | None:
    """Label and content of a choice such as ``C. 7``; the content is empty for a bare letter."""
    if found := _LETTER_CHOICE.match(text):
        return found[1], ""
    found = _CHOICE.match(text)
    return (found[1] or found[2], found[3].strip()) if found else None


def readings(text: str) -> list[str]:
    """The text with its commas as thousands separators, and as list separators.

    ``126,129`` is ambiguous. Close ascending groups of three digits are a list first; anything
    else that looks like thousands is a number first.
    """
    if not _THOUSANDS.search(text):
        return [text]
    joined = _outside_brackets(text)
    groups = [int(each) for each in text.split(",")] if re.fullmatch(r"[\d,]+", text) else []
    close = len(groups) > 1 and groups[0] >= 100 and groups == sorted(set(groups))
    if close and groups[-1] <= groups[0] * (1.1 if len(groups) == 2 else 2):
        return [text, joined]
    return [joined, text] if joined != text else [text]


def _outside_brackets(text: str) -> str:
    parts, depth, at = [], 0, 0
    for match in _THOUSANDS.finditer(text):
        before = text[at : match.start()]
        depth += sum(char in "([⦃⟨" for char in before) - sum(char in ")]⦄⟩" for char in before)
        number = match[0] if depth else match[0].replace(",", "")
        parts += [before, number]
        at = match.end()
    return "".join([*parts, text[at:]])


def read(text: str, depth: int = 0) -> Form:
    """The structure of a text without dress.

    Raises:
        NoForm: It is too large or deep.
    """
    text = text.strip()
    if depth > _MAX_DEPTH:
        raise NoForm
    if (matrix := _matrix(text, depth)) is not None:
        return matrix
    if (cases := re.fullmatch(r"\\begin\{cases\}(.*)\\end\{cases\}", text)) and "&" not in text:
        text = cases[1].replace(ROW, ",")
    if "\\begin" in text:
        return Leaf(text)
    parts = separate(text)
    if len(parts) > 1:
        return _listed(parts, re.search(r"\bor\b", text) is not None, depth)
    if any(sign in text for sign in _RELATIONS):
        sides, signs = split(text, _RELATIONS)
        if signs and all(side.strip() for side in sides):
            if "±" in text and not is_name(sides[0].strip()):
                return Items("list", tuple(read(each, depth + 1) for each in both_signs(text)))
            return _relation(tuple(side.strip() for side in sides), signs, depth)
    return _simple(text, depth)


def _simple(text: str, depth: int) -> Form:
    """Anything without lists and relations at its top."""
    for sign in "∪∖":
        sides, signs = split(text, sign)
        if signs:
            return _union([side.strip() for side in sides], sign, depth)
    if text == "ℝ":
        return Union((Interval("-∞", "∞", False, False),))
    left, inner, right = text[:1], text[1:-1], text[-1:]
    closed = len(text) > 1 and left in OPENING and right in CLOSING and balanced(inner)
    if closed and (form := _bracketed(left, inner, right, depth)):
        return form
    sides, signs = split(text, ":")
    if signs and all(side.strip() for side in sides) and len(sides) < 6:
        return Items("ratio", tuple(Leaf(side.strip()) for side in sides))
    if "±" in text or "∓" in text:
        return Items("list", tuple(Leaf(each) for each in both_signs(text)))
    return Leaf(text)


def _bracketed(left: str, inner: str, right: str, depth: int) -> Form | None:
    if left + right in ("⦃⦄", "{}"):
        builder, signs = split(inner, "|:", bars=False)
        if signs and len(builder) == 2 and _NAME.match(builder[0].strip()):
            return read(builder[1], depth + 1)
        return Items("set", _flat(inner, depth))
    parts = separate(inner, words=False)
    if left + right == "[]" and len(parts) == 1 and inner.strip():
        return Items("[", (read(inner, depth + 1),), "[]")
    if len(parts) < 2 or left not in "([⟨" or right not in ")]⟩":
        if left == "(" and right == ")" and len(parts) == 1 and any(r in inner for r in _RELATIONS):
            return read(inner, depth + 1)
        return None
    expanded = both_signs(inner) if "±" in inner or "∓" in inner else [inner]
    tuples = []
    for each in expanded:
        items = tuple(read(part, depth + 1) for part in separate(each, words=False))
        same = left + right in ("()", "[]", "⟨⟩")
        kind: Literal["(", "[", "mixed"] = "mixed" if not same else "[" if left == "[" else "("
        tuples.append(Items(kind, items, (left + right).replace("⟨", "(").replace("⟩", ")")))
    return tuples[0] if len(tuples) == 1 else Items("list", tuple(tuples))


def _flat(inner: str, depth: int) -> tuple[Form, ...]:
    """Items of a set, where a plus-minus counts as two."""
    if not inner.strip():
        return ()
    found: list[Form] = []
    for part in separate(inner):
        form = read(part, depth + 1)
        found += form.items if isinstance(form, Items) and form.kind == "list" else [form]
    return tuple(found)


def _listed(parts: list[str], alternative: bool, depth: int) -> Form:
    """A list; names that are the same for all items go, different ones make it a tuple."""
    found: list[Form] = []
    for part in parts:
        form = read(part, depth + 1)
        value = form.value if isinstance(form, Named) else form
        if isinstance(value, Items) and value.kind == "list":
            name = form.name if isinstance(form, Named) else ""
            found += [Named(name, each) if name else each for each in value.items]
        else:
            found.append(form)
    names = [form.name for form in found if isinstance(form, Named)]
    shared = len(set(names)) == 1 and isinstance(found[0], Named)
    if shared and len(names) in (1, len(found)):
        values = tuple(f.value if isinstance(f, Named) else f for f in found)
        return Named(names[0], Items("list", _distinct(values) if alternative else values))
    return Items("list", _distinct(tuple(found)) if alternative else tuple(found))


def _distinct(items: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(dict.fromkeys(items))


def _relation(sides: tuple[str, ...], signs: str, depth: int) -> Form:
    if set(signs) == {"="}:
        return _equation(sides, depth)
    if len(sides) == 2 and signs == "∈" and _NAME.match(sides[0]):
        return Named(sides[0], read(sides[1], depth + 1))
    if len(sides) == 2 and signs == "∈" and re.fullmatch(r"\([\w\s,\\]+\)", sides[0]):
        return Named(sides[0], read(sides[1], depth + 1))
    if interval := _interval(sides, signs):
        return interval
    forms = tuple(_simple(side, depth + 1) for side in sides)
    return Relation(forms, signs, sides)


def _equation(sides: tuple[str, ...], depth: int) -> Form:
    first, last = sides[0], sides[-1]
    if is_name(first) or re.fullmatch(r"[(⦃{][\w\s,\\]+[)⦄}]", first):
        value = read(last, depth + 1)
        if not isinstance(value, Named):
            return Named(re.sub(r"\s", "", first), value)
    if len(sides) == 2 and _NAME.match(last):
        return Named(re.sub(r"\s", "", last), read(first, depth + 1))
    if not re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", "".join(sides))):
        # A calculation with its result on the right.
        return Named("", read(last, depth + 1))
    forms = tuple(_simple(side, depth + 1) for side in sides)
    return Relation(forms, "=" * (len(sides) - 1), sides)


def is_name(text: str) -> bool:
    """A letter, a function of letters, or another label for one quantity."""
    return bool(_NAME.match(text) or _COMPOUND_NAME.match(text))


def _interval(sides: tuple[str, ...], signs: str) -> Form | None:
    """The solutions of ``x > 3``, ``1 < x ≤ 2`` and ``x ≠ 1``."""
    flip = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "≠": "≠"}
    if len(sides) == 2 and _NAME.match(sides[1]) and not _NAME.match(sides[0]):
        sides, signs = (sides[1], sides[0]), flip.get(signs, signs)
    if len(sides) == 2 and _NAME.match(sides[0]) and not _lettered(sides[1]):
        bound = sides[1]
        if signs == "≠":
            return Named(sides[0], Union((), (Leaf(bound),)))
        if signs in "<≤":
            return Named(sides[0], Union((Interval("-∞", bound, False, signs == "≤"),)))
        if signs in ">≥":
            return Named(sides[0], Union((Interval(bound, "∞", signs == "≥", False),)))
    if len(sides) == 3 and _NAME.match(sides[1]) and not _lettered(sides[0] + " " + sides[2]):
        if set(signs) <= set(">≥"):
            sides, signs = sides[::-1], "".join(flip[sign] for sign in signs[::-1])
        if set(signs) <= set("<≤"):
            return Named(
                sides[1],
                Union((Interval(sides[0], sides[2], signs[0] == "≤", signs[1] == "≤"),)),
            )
    return None


def _lettered(text: str) -> bool:
    """It holds letters other than functions and constants."""
    rest = re.sub(r"\\[a-zA-Z]+|\b(?:sqrt|pi|log|ln|exp|sin|cos|tan)\b", " ", text)
    return bool(re.search(r"[a-df-zA-Z]", rest))


def _union(sides: list[str], sign: str, depth: int) -> Form:
    forms = [read(side, depth + 1) for side in sides]
    if sign == "∖" and len(forms) == 2 and isinstance(forms[0], Union):
        removed = forms[1]
        if forms[0].intervals[0].low == "-∞" and isinstance(removed, Items):
            return Union((), removed.items)
    parts = [as_union(form) for form in forms]
    if sign == "∖" or None in parts:
        return Leaf(f" {sign} ".join(sides))
    return Union(tuple(each for part in parts if part is not None for each in part.intervals))


def _matrix(text: str, depth: int) -> Matrix | None:
    """A matrix of LaTeX; brackets around an array go."""
    found = re.fullmatch(
        r"[(\[|]?\s*\\begin\s*\{([a-zA-Z]*matrix|array)\}\s*(?:\{[lcr|\s]*\})?(.*)"
        r"\\end\s*\{\1\}\s*[)\]|]?",
        text,
    )
    if found is None or "\\begin" in found[2]:
        return None
    rows = [row for row in re.split(rf"{ROW}|\\cr(?![a-z])", found[2]) if row.strip()]
    entries = tuple(
        tuple(read(entry, depth + 1) for entry in row.split("&")) for row in rows[:MAX_ITEMS]
    )
    return Matrix(entries, found[1].startswith("v") or text.startswith("|"))
