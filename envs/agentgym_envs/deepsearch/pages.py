"""The encyclopaedia: a page of two sections per entity, with a search index."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from agentgym_envs.bm25 import IndexWriter
from agentgym_envs.deepsearch.corpora import ScoredIndex
from agentgym_envs.deepsearch.knowledge import (
    RELATIONS,
    Entity,
    Knowledge,
    make_knowledge,
    stable_choice,
)
from agentgym_envs.deepsearch.names import Names
from agentgym_envs.deepsearch.sources import Hit, Page, nfc

_INTRODUCTIONS = {
    "person": "{x} is a person of note.",
    "town": "{x} is a town.",
    "company": "{x} is a company.",
    "book": "{x} is a book.",
}
_FILLER = (
    "Much has been written on the subject.",
    "Details are given in the following section.",
    "Sources agree on the main points.",
    "Older accounts differ.",
)


class Encyclopaedia:
    """Pages with their index; safe to use from many threads."""

    snippet = 160

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        self.pages = {name: _page(knowledge, entity) for name, entity in knowledge.entities.items()}
        self._titles = list(self.pages)
        writer = IndexWriter()
        for page in self.pages.values():
            # The title counts twice, as in an index of both titles and texts.
            writer.add(f"{page.title} {page.title} {' '.join(page.sections)}")
        with tempfile.TemporaryDirectory() as folder:
            writer.write(Path(folder))
            # Mapped files stay readable after the folder is deleted.
            self._index = ScoredIndex(Path(folder), np.arange(len(self._titles)))

    def search(self, query: str, count: int) -> list[Hit]:
        """The best pages with their first sections, best first."""
        query = nfc(query)
        rows = self._index.search(query, count)
        found = [self.pages[self._titles[row]] for row in rows]
        return [
            Hit(page.title, page.title, page.sections[0], score)
            for page, score in zip(found, self._index.scores(query, rows), strict=True)
        ]

    def page(self, title: str) -> Page | None:
        """A page by its title."""
        return self.pages.get(nfc(title))


@cache
def open_encyclopaedia(size: int, seed: int, names: Names = "made-up") -> Encyclopaedia:
    """One per process."""
    return Encyclopaedia(make_knowledge(size, seed, names))


def _page(knowledge: Knowledge, entity: Entity) -> Page:
    """The page of an entity; the wording is a hash of the entity."""
    sections = [[_INTRODUCTIONS[entity.kind].format(x=entity.name)], []]
    if alias := knowledge.aliases.get(entity.name):
        sections[0].append(f"The name is often written {alias}.")
    for key in entity.facts:
        relation = RELATIONS[key]
        wording = relation.sentences[stable_choice(entity.name + key, len(relation.sentences))]
        sentence = wording.format(x=entity.name, y=knowledge.stated(entity.name, key))
        sections[relation.section - 1].append(sentence)
    for section in sections:
        section.append(_FILLER[stable_choice(entity.name + section[0], len(_FILLER))])
    return Page(entity.name, tuple(" ".join(section) for section in sections))
