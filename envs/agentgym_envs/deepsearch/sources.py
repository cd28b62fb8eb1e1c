"""Where pages come from: one interface over pages in memory, in files and behind a server."""

from __future__ import annotations

from typing import NamedTuple, Protocol

LONGEST = 2000
"""Characters of a section, as far as paragraphs allow."""


class Page(NamedTuple):
    """One document, as it is read."""

    title: str
    sections: tuple[str, ...]


class Hit(NamedTuple):
    """One document, as a search finds it."""

    id: str
    title: str
    text: str
    """What a search shows the beginning of."""
    score: float = 0.0
    """The search engine's own; larger is better."""


class Source(Protocol):
    """Finds pages; safe to use from many threads."""

    snippet: int
    """Characters of a hit that are worth showing."""

    def search(self, query: str, count: int) -> list[Hit]:
        """The best documents, best first."""

    def page(self, title: str) -> Page | None:
        """The page of exactly this title."""


def split(text: str) -> tuple[str, ...]:
    """Sections of a long text, cut between paragraphs; at least one."""
    sections = [""]
    for paragraph in text.split("\n\n"):
        if sections[-1] and len(sections[-1]) + len(paragraph) > LONGEST:
            sections.append("")
        sections[-1] += ("\n\n" if sections[-1] else "") + paragraph
    return tuple(sections)
