"""Questions with exact answers computed from the graph, and their supporting pages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from agentgym_envs.deepsearch.knowledge import KINDS, RELATIONS, Knowledge, stable_choice

NUMBERS = {"train": range(4000), "valid": range(4000, 4500), "test": range(4500, 5000)}
"""Question numbers of each split."""
PATTERNS = ("chain", "comparison", "difference", "count")
_HELD_OUT = {0: "test", 1: "valid"}
"""The two of five parts of all patterns that are held out."""

_HAPPENED = {"born": "was born", "founded": "was founded"}


class Lookup(NamedTuple):
    """The location of one supporting fact."""

    page: str
    section: int


class Question(NamedTuple):
    """A question with its answers."""

    text: str
    answer: str
    pattern: str
    support: tuple[Lookup, ...]
    """In lookup order."""
    aliases: tuple[str, ...] = ()
    """Other right answers."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All right answers."""
        return (self.answer, *self.aliases)


def ask(
    knowledge: Knowledge,
    number: int,
    hops: int,
    *,
    by_pattern: bool = False,
    relations: Collection[str] = (),
) -> Question:
    """The question of a number.

    It starts from an entity of its split: the last digit of the entity's index among its kind is
    9 for test, 8 for valid, other digits for train.

    Args:
        knowledge: The graph.
        number: One of ``NUMBERS``.
        hops: Facts of a chain, 1 to 4; a comparison or difference has two chains of half the
            length, a count has one fact more.
        by_pattern: No relation, or sequence of relations, is asked for in two splits.
        relations: Relations of one-hop questions; all if empty.
    """
    split = next(name for name, numbers in NUMBERS.items() if number in numbers)
    rng = np.random.default_rng([number, hops])
    while True:
        question, asked = _drawn(knowledge, split, hops, rng)
        if relations and asked not in relations:
            continue
        if not by_pattern or split == _HELD_OUT.get(stable_choice(f"81 {asked}", 5), "train"):
            return question


def _drawn(
    knowledge: Knowledge, split: str, hops: int, rng: np.random.Generator
) -> tuple[Question, str]:
    """A question, and its pattern and relations."""
    pattern = PATTERNS[int(rng.integers(len(PATTERNS)))] if hops > 1 else "chain"
    if pattern == "chain":
        start = _start(knowledge, split, rng)
        path = _path(knowledge, start, hops, rng, last="")
        return _chain(knowledge, start, path), " ".join(path)
    last = ("born", "founded")[int(rng.integers(2))]
    while True:
        if pattern == "count":
            kind = RELATIONS[last].source
            starts = [_start(knowledge, split, rng, kind) for _ in range(hops + 1)]
            paths: list[tuple[str, ...]] = [(last,)] * len(starts)
        else:
            starts = [_start(knowledge, split, rng) for _ in range(2)]
            paths = [_path(knowledge, start, hops // 2, rng, last=last) for start in starts]
        both = list(zip(starts, paths, strict=True))
        years = [int(knowledge.follow(start, path)[-1]) for start, path in both]
        if len(set(years)) == len(years):
            break
    asked = " ".join([pattern, *("/".join(path) for path in paths)])
    if pattern == "count":
        return _count(last, starts, years, rng), asked
    return _pair(knowledge, pattern, last, both, years), asked


def _start(knowledge: Knowledge, split: str, rng: np.random.Generator, kind: str = "") -> str:
    names = knowledge.by_kind[kind or KINDS[int(rng.integers(len(KINDS)))]]
    digits = {"train": range(8), "valid": (8,), "test": (9,)}[split]
    mine = [name for at, name in enumerate(names) if at % 10 in digits]
    return mine[int(rng.integers(len(mine)))]


def _path(
    knowledge: Knowledge, start: str, hops: int, rng: np.random.Generator, *, last: str
) -> tuple[str, ...]:
    """A path of relations from an entity that visits no page twice and ends in ``last``."""
    kind = knowledge.entities[start].kind
    paths = [path for path in _paths(kind, hops, last) if _straight(knowledge, start, path)]
    if not paths:
        return _path(knowledge, start, hops + 1, rng, last=last)
    return paths[int(rng.integers(len(paths)))]


def _paths(kind: str, hops: int, last: str) -> Iterator[tuple[str, ...]]:
    for key, relation in RELATIONS.items():
        if relation.source != kind:
            continue
        if hops == 1:
            if last in ("", key):
                yield (key,)
        elif relation.target != "number":
            for rest in _paths(relation.target, hops - 1, last):
                yield (key, *rest)


def _straight(knowledge: Knowledge, start: str, path: tuple[str, ...]) -> bool:
    visited = [start, *map(str, knowledge.follow(start, path))]
    return len(set(visited)) == len(visited)


def _described(start: str, path: tuple[str, ...]) -> str:
    phrase = start
    for key in path:
        phrase = RELATIONS[key].phrase.format(x=phrase)
    return phrase


def _support(knowledge: Knowledge, start: str, path: tuple[str, ...]) -> tuple[Lookup, ...]:
    visited = [start, *map(str, knowledge.follow(start, path))]
    return tuple(
        Lookup(page, RELATIONS[key].section) for page, key in zip(visited, path, strict=False)
    )


def _chain(knowledge: Knowledge, start: str, path: tuple[str, ...]) -> Question:
    text = RELATIONS[path[-1]].question.format(x=_described(start, path[:-1]))
    *way, target = map(str, (start, *knowledge.follow(start, path)))
    answer = knowledge.stated(way[-1], path[-1])
    support = _support(knowledge, start, path)
    return Question(
        text, answer, f"{len(path)}-hop", support, _other_names(knowledge, target, answer)
    )


def _pair(
    knowledge: Knowledge,
    pattern: str,
    last: str,
    both: Sequence[tuple[str, tuple[str, ...]]],
    years: Sequence[int],
) -> Question:
    subjects = [str((start, *knowledge.follow(start, path))[-2]) for start, path in both]
    phrases = [_described(start, path[:-1]) for start, path in both]
    support = tuple(lookup for start, path in both for lookup in _support(knowledge, start, path))
    if pattern == "comparison":
        text = (
            f"Which {_HAPPENED[last]} earlier, {phrases[0]} or {phrases[1]}? Answer with the name."
        )
        answer = subjects[0] if years[0] < years[1] else subjects[1]
        return Question(text, answer, pattern, support, _other_names(knowledge, answer, answer))
    text = (
        f"How many years lie between the year in which {phrases[0]} {_HAPPENED[last]} and the "
        f"year in which {phrases[1]} {_HAPPENED[last]}?"
    )
    return Question(text, str(abs(years[0] - years[1])), pattern, support)


def _count(
    last: str, starts: Sequence[str], years: Sequence[int], rng: np.random.Generator
) -> Question:
    """A count: the answer is uniform from 0 to the number of entities less 1."""
    answer = int(rng.integers(len(years)))
    listed = f"{', '.join(starts[:-1])} and {starts[-1]}"
    verb = _HAPPENED[last].replace("was", "were")
    text = f"How many of these {verb} before {sorted(years)[answer]}: {listed}?"
    support = tuple(Lookup(start, RELATIONS[last].section) for start in starts)
    return Question(text, str(answer), "count", support)


def _other_names(knowledge: Knowledge, name: str, answer: str) -> tuple[str, ...]:
    """Names of an entity other than the answer."""
    return tuple({name, knowledge.aliases.get(name, name)} - {answer})
