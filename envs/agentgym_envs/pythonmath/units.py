"""Quantities: a value with its unit, which one side of a comparison may omit."""

from __future__ import annotations

import re
from typing import NamedTuple


class Measured(NamedTuple):
    """A quantity: its value, unit, and whether it is in percent."""

    value: str
    unit: str
    percent: bool


_UNITS = {
    **dict.fromkeys(("dollar", "dollars", "usd", "bucks"), "dollar"),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), "cm"),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("km", "kilometer", "kilometre"), "km"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("in", "inch", "inche"), "inch"),
    **dict.fromkeys(("ft", "foot", "feet"), "foot"),
    **dict.fromkeys(("lb", "lbs", "pound"), "pound"),
    **dict.fromkeys(("hr", "hrs", "hour"), "hour"),
    **dict.fromkeys(("min", "mins", "minute"), "minute"),
    **dict.fromkeys(("sec", "secs", "second"), "second"),
    **dict.fromkeys(("kg", "kilogram"), "kg"),
    **dict.fromkeys(("gram", "gms"), "g"),
    **dict.fromkeys(("mph", "mile per hour"), "mph"),
    **dict.fromkeys(("ml", "milliliter", "millilitre"), "ml"),
    "people": "person", "yd": "yard", "oz": "ounce", "unit": "unit", "mi": "mile",
}  # fmt: skip
_SHORT = {"cm", "mm", "km", "in", "ft", "lb", "hr", "kg", "ml", "mi", "yd", "oz", "MB", "GB", "mL"}
_MULTIPLIERS = {
    "hundred": "10^2", "thousand": "10^3", "million": "10^6", "billion": "10^9",
    "trillion": "10^12", "dozen": "12",
}  # fmt: skip
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
_LOGIC = (
    "not if or and is are was when where for but mod modulo than then with else unless "
    "squared cubed choose root over from to times plus minus divided factorial half third "
    "thirds fourths quarter quarters at least most more less sqrt sin cos tan log ln exp pi "
    "base binary hex wrong right"
)
"""Words that change a value, so that they are no unit."""
_UNIT_WORD = r"[a-zA-Z]+(?:/[a-zA-Z]+)?(?:\s*\^\s*\{?[23]\}?)?"
_TRAILING = re.compile(
    rf"^(?P<value>.*?[\d)}}\]]|.*?\\?pi|.*°)"
    rf"(?:\s+(?P<words>{_UNIT_WORD}(?:\s+{_UNIT_WORD}){{0,3}})|(?P<short>{'|'.join(sorted(_SHORT))}))$"
)
_ORDINAL = re.compile(r"^(\d+)\s*(?:st|nd|rd|th)$")


def measured(text: str) -> Measured:
    """Split a quantity into value and unit."""
    text = re.sub(r"\s+\^", "^", re.sub(r"^\((.*)\)%$", r"\1%", text.strip()))
    percent = "%" in text and not re.search(r"%\s*[\d(]", text)
    text = text.replace("%", "").strip() if percent else text
    unit = ""
    leading = re.match(r"^(-?)\s*(dollars|euros|pounds)\s+(.*)$", text)
    if leading:
        text, unit = leading[1] + leading[3], _unit(leading[2])
    elif found := _ORDINAL.match(text):
        text, unit = found[1], "th"
    elif found := _TRAILING.match(text):
        words = (found["words"] or found["short"]).split()
        value = found["value"]
        if words and words[0] in _MULTIPLIERS:
            value = f"({value})*{_MULTIPLIERS[words.pop(0)]}"
        if all(_is_unit(word) for word in words):
            text, unit = value, _unit(" ".join(words))
    elif text.lower() in _NUMBERS.split():
        text = str(_NUMBERS.split().index(text.lower()))
    if text.endswith("°") and not unit and not re.search(r"sin|cos|tan|cot|sec|csc", text):
        text, unit = text[:-1], "°"
    return Measured(text.strip(), unit, percent)


def _is_unit(word: str) -> bool:
    """A word that may be a unit: not logic, and no product of letters."""
    letters = re.sub(r"\^.*|\s", "", word)
    if letters.lower() in _LOGIC.split() or letters in _MULTIPLIERS:
        return False
    return letters in _SHORT or "/" in letters or len(letters) > 2


def _unit(words: str) -> str:
    """One spelling of a unit."""
    text = re.sub(r"[\s{}]", "", words) if "^" in words else " ".join(words.split())
    text = re.sub(r"^(?:square|sq\.?)\s+(\S+)$", r"\1^2", text)
    text = re.sub(r"^cubic\s+(\S+)$", r"\1^3", text)
    base, mark, power = text.partition("^")
    base = base.strip() if base in _SHORT else base.strip().lower()
    if base in _UNITS:
        base = _UNITS[base]
    elif base.endswith("s") and len(base) > 3:
        base = _UNITS.get(base[:-1], base[:-1])
    return base + mark + power
