"""The parts of an answer: between separators outside of brackets, and for both signs of ±."""

from __future__ import annotations

import itertools
import re

from agentgym_envs.pythonmath.forms import NoForm

OPENING, CLOSING = "([{⦃⟨⌊⌈", ")]}⦄⟩⌋⌉"
"""Brackets, pair by pair."""
MAX_ITEMS = 60
"""Largest number of parts, and of rows of a matrix."""


def both_signs(text: str) -> list[str]:
    """All readings of plus-minus signs; a minus-plus is opposite to them."""
    count = text.count("±")
    if "∓" in text or count == 0:
        return [
            text.replace("±", one).replace("∓", other) for one, other in (("+", "-"), ("-", "+"))
        ]
    if count > 3:
        raise NoForm
    found = []
    for signs in itertools.product("+-", repeat=count):
        pieces = text.split("±")
        found.append("".join(a + b for a, b in zip(pieces, [*signs, ""], strict=True)))
    return [each.strip().removeprefix("+").strip() for each in found]


def separate(text: str, *, words: bool = True) -> list[str]:
    """The parts between commas and semicolons, and between "and" and "or"."""
    if words:
        text = re.sub(r",?\s*(?:\band\b|\bor\b|\\text\{\s*(?:and|or)\s*\}|\\lor(?![a-z])|\\land"
                      r"(?![a-z])|\\vee(?![a-z]))\s*", ",", text)  # fmt: skip
    parts, signs = split(text, ",;")
    if len(parts) > MAX_ITEMS:
        raise NoForm
    found = [part.strip() for part in parts]
    if signs and found and not found[-1]:
        found.pop()
    return found


def split(text: str, signs: str, *, bars: bool = True) -> tuple[list[str], str]:
    """The parts between some characters outside of brackets, and the characters."""
    parts, found, depth = [""], "", 0
    for char in text:
        depth += (char in OPENING) - (char in CLOSING)
        if char in signs and depth == 0:
            parts.append("")
            found += char
            if not bars:
                signs = ""
        else:
            parts[-1] += char
    return parts, found


def balanced(text: str) -> bool:
    """Every bracket is closed."""
    depth = 0
    for char in text:
        depth += (char in OPENING) - (char in CLOSING)
        if depth < 0:
            return False
    return depth == 0
