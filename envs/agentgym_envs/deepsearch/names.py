"""Distinct names of people, towns, companies and books, many of which share a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

Names = Literal["made-up", "common"]
"""From syllables, unlimited; or from a few common words, for a model made from scratch."""
NAMES: tuple[Names, ...] = ("made-up", "common")
MOST_COMMON = 1000
"""Most pages with common names."""


def _words(text: str) -> list[str]:
    return text.split()


_SYLLABLES = [
    "bal",
    "cor",
    "den",
    "fal",
    "gor",
    "hal",
    "jun",
    "kel",
    "lor",
    "mar",
    "nel",
    "por",
    "quin",
    "ral",
    "sel",
    "tor",
    "ul",
    "van",
    "wen",
    "yor",
]
_ENDS = ["a", "am", "an", "as", "e", "en", "er", "ia", "in", "is", "o", "on", "or", "us"]
_OBJECTS = [
    "River",
    "Garden",
    "Tower",
    "Mirror",
    "Harbour",
    "Letter",
    "Winter",
    "Forest",
    "Clock",
    "Bridge",
    "Island",
    "Lantern",
]
_QUALITIES = [
    "Silent",
    "Broken",
    "Golden",
    "Hidden",
    "Last",
    "Distant",
    "Burning",
    "Hollow",
    "Second",
    "Crooked",
]
_TRADES = ["Works", "Press", "Mills", "Shipping", "Instruments", "Trading", "Glass", "Railways"]
_FIRST = _words(
    "Ada Alan Amy Anna Ben Carl Clara Dora Emil Emma Eric Eva Felix Fred Greta Hugo Ida Ivan Jack "
    "Jane John Karl Kate Lena Leo Lily Lucy Marc Mary Max Nina Nora Olga Otto Paul Peter Rosa Ruth "
    "Sam Tom"
)
_LAST = _words(
    "Adams Baker Bell Brown Carter Clark Cole Cook Cooper Davis Evans Fisher Ford Fox Grant Gray "
    "Green Hall Hill Hunt King Lane Lee Long Mason Miller Moore Parker Price Reed Rice Rose Scott "
    "Shaw Smith Stone Ward West White Young"
)
_PLACES = _words(
    "Ashford Barton Bedford Bolton Burford Carlton Clifton Dalton Denton Easton Elton Felton "
    "Gorton Halton Hatfield Helston Kelton Kirkton Langford Linton Luton Marston Melton Milton "
    "Morton Newton Norton Oakford Preston Rushton Sefton Stafford Sutton Swinton Thornton "
    "Walton Weston Wilton Winton Wootton"
)
_SIDES = _words("North South East West New Old Upper Lower Great Little")


def make_names(names: Names, kind: str, count: int, rng: np.random.Generator) -> list[str]:
    """Distinct names of one kind, many similar: they distract from each other."""
    maker = (_made_up if names == "made-up" else _common)(kind, count, rng)
    found: dict[str, None] = {}
    while len(found) < count:
        found[maker()] = None
    return list(found)


def _pick(options: list[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _made_up(kind: str, count: int, rng: np.random.Generator) -> Callable[[], str]:
    def pick(options: list[str]) -> str:
        return _pick(options, rng)

    syllables = _syllables(count)

    def word() -> str:
        parts = [pick(_SYLLABLES) for _ in range(syllables)]
        return "".join([*parts, pick(_ENDS)]).capitalize()

    shared = [word() for _ in range(max(2, count // 3))]
    makers: dict[str, Callable[[], str]] = {
        "person": lambda: f"{word()} {pick(shared)}",
        "town": lambda: (
            pick(["", "", "North ", "New ", "Upper "])
            + pick(shared)
            + pick(["ford", "ton", "bury", "stead"])
        ),
        "company": lambda: f"{pick(shared)} {pick(_TRADES)}",
        "book": lambda: f"The {pick(_QUALITIES)} {pick(_OBJECTS)} of {word()}",
    }
    return makers[kind]


def _syllables(count: int) -> int:
    """Syllables of a word, at least two, so that ``count`` names are found quickly.

    Companies have the fewest names: one word and a trade.
    """
    number = 2
    while 2 * len(_SYLLABLES) ** number * len(_ENDS) * len(_TRADES) < 3 * count:
        number += 1
    return number


def _common(kind: str, count: int, rng: np.random.Generator) -> Callable[[], str]:
    def pick(options: list[str]) -> str:
        return _pick(options, rng)

    makers: dict[str, Callable[[], str]] = {
        "person": lambda: f"{pick(_FIRST)} {pick(_LAST)}",
        "town": lambda: f"{pick(_SIDES)} {pick(_PLACES)}",
        "company": lambda: f"{pick(_LAST)} {pick(_TRADES)}",
        "book": lambda: f"The {pick(_QUALITIES)} {pick(_OBJECTS)} of {pick(_PLACES)}",
    }
    return makers[kind]
