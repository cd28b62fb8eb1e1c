"""A generated knowledge graph of people, towns, companies and books."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from agentgym_envs.deepsearch.names import Names, make_names

Target = int | str
"""Target of a relation: a number, or the name of another entity."""


class Relation(NamedTuple):
    """A relation between two kinds of entities, with its wording."""

    source: str
    target: str
    """A kind of entity, or ``number``."""
    phrase: str
    """Phrase for the target: ``the author of {x}``."""
    question: str
    """Question for the target: ``Who wrote {x}?``."""
    sentences: tuple[str, ...]
    """Statements of the fact, one of which is used."""
    section: int
    """Section of the page that states it; the second takes another visit."""


RELATIONS: dict[str, Relation] = {
    "author": Relation(
        "book", "person", "the author of {x}", "Who wrote {x}?",
        ("{x} was written by {y}.", "{y} is the author of {x}."), 1,
    ),
    "setting": Relation(
        "book", "town", "the town where {x} is set", "In which town is {x} set?",
        ("The story takes place in {y}.", "{x} is set in {y}."), 2,
    ),
    "publisher": Relation(
        "book", "company", "the publisher of {x}", "Which company published {x}?",
        ("{y} published {x}.", "It was brought out by {y}."), 1,
    ),
    "published": Relation(
        "book", "number", "", "In which year was {x} published?",
        ("It came out in {y}.", "The first edition is of {y}."), 2,
    ),
    "birthplace": Relation(
        "person", "town", "the birthplace of {x}", "In which town was {x} born?",
        ("{x} was born in {y}.", "The native town of {x} is {y}."), 1,
    ),
    "employer": Relation(
        "person", "company", "the employer of {x}", "For which company does {x} work?",
        ("{x} works for {y}.", "{y} employs {x}."), 2,
    ),
    "born": Relation(
        "person", "number", "", "In which year was {x} born?",
        ("The year of birth was {y}.", "{x} came into the world in {y}."), 1,
    ),
    "mayor": Relation(
        "town", "person", "the mayor of {x}", "Who is the mayor of {x}?",
        ("The mayor is {y}.", "{y} was elected mayor of {x}."), 2,
    ),
    "population": Relation(
        "town", "number", "", "How many people live in {x}?",
        ("{x} has {y} inhabitants.", "{y} people live in {x}."), 1,
    ),
    "founder": Relation(
        "company", "person", "the founder of {x}", "Who founded {x}?",
        ("{x} was founded by {y}.", "{y} founded {x}."), 1,
    ),
    "seat": Relation(
        "company", "town", "the seat of {x}", "In which town is {x} based?",
        ("Its seat is {y}.", "{x} has its offices in {y}."), 1,
    ),
    "founded": Relation(
        "company", "number", "", "In which year was {x} founded?",
        ("The year of its foundation was {y}.", "It began in {y}."), 2,
    ),
}  # fmt: skip
KINDS = ("person", "town", "company", "book")
_NUMBERS = {
    "published": (1850, 2020),
    "born": (1800, 2000),
    "population": (900, 90_000),
    "founded": (1820, 2010),
}


@dataclass(frozen=True)
class Entity:
    """The subject of one page."""

    name: str
    kind: str
    facts: dict[str, Target]
    """Relation -> number, or name of an entity."""


@dataclass(frozen=True)
class Knowledge:
    """All entities by name; their order matters."""

    entities: dict[str, Entity]

    @cached_property
    def by_kind(self) -> dict[str, list[str]]:
        """Names of entities, in order."""
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for entity in self.entities.values():
            found[entity.kind].append(entity.name)
        return found

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Aliases of people, such as ``H. Gray``, where the alias is unique."""
        short = {name: f"{name[0]}. {name.rpartition(' ')[2]}" for name in self.by_kind["person"]}
        count = Counter(short.values())
        return {name: alias for name, alias in short.items() if count[alias] == 1}

    def stated(self, name: str, relation: str) -> str:
        """A target as the page states it: some by alias."""
        target = str(self.entities[name].facts[relation])
        return (
            self.aliases.get(target, target)
            if stable_choice(f"{name} {relation}", 4) == 0
            else target
        )

    def follow(self, name: str, path: tuple[str, ...]) -> tuple[Target, ...]:
        """The target of each relation along a path."""
        found: list[Target] = []
        at: Target = name
        for relation in path:
            at = self.entities[str(at)].facts[relation]
            found.append(at)
        return tuple(found)


@cache
def make_knowledge(size: int, seed: int, names_of: Names = "made-up") -> Knowledge:
    """A graph of ``size`` entities, a quarter of each kind; deterministic."""
    rng = np.random.default_rng([seed, size])
    names = {kind: make_names(names_of, kind, max(2, size // len(KINDS)), rng) for kind in KINDS}
    entities = {}
    for kind in KINDS:
        for name in names[kind]:
            facts: dict[str, Target] = {}
            for key, relation in RELATIONS.items():
                if relation.source == kind and relation.target == "number":
                    low, high = _NUMBERS[key]
                    facts[key] = int(rng.integers(low, high))
                elif relation.source == kind:
                    targets = names[relation.target]
                    while (target := targets[int(rng.integers(len(targets)))]) == name:
                        pass
                    facts[key] = target
            entities[name] = Entity(name, kind, facts)
    return Knowledge(entities)


def stable_choice(name: str, count: int) -> int:
    """A number below ``count``, a hash of the name."""
    return blake2b(name.encode()).digest()[0] % count
