"""Sources of pages: one interface over pages in memory, in files and behind a server."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple, Protocol

MAX_SECTION = 2000
"""Most characters of a section, unless one paragraph is longer."""


class Page(NamedTuple):
    """One document, as a visit shows it."""

    title: str
    sections: tuple[str, ...]


class Hit(NamedTuple):
    """One search result."""

    id: str
    title: str
    text: str
    """The text; a search shows its beginning."""
    score: float = 0.0
    """Score of the search engine; larger is better."""


class Source(Protocol):
    """Finds pages; safe to use from many threads."""

    snippet: int
    """Characters shown of a hit."""

    def search(self, query: str, count: int) -> list[Hit]:
        """The best documents, best first."""

    def page(self, title: str) -> Page | None:
        """The page with this title."""


def nfc(text: str) -> str:
    """A text in Unicode's composed form, in which texts of different origin are compared."""
    return unicodedata.normalize("NFC", text)


def split(text: str) -> tuple[str, ...]:
    """Sections of a text, split between paragraphs; at least one."""
    sections = [""]
    for paragraph in text.split("\n\n"):
        if sections[-1] and len(sections[-1]) + len(paragraph) > MAX_SECTION:
            sections.append("")
        sections[-1] += ("\n\n" if sections[-1] else "") + paragraph
    return tuple(sections)
