"""A room and a pair of hands in one line each, from TextWorld's logical facts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

_DIRECTIONS = ("north", "south", "east", "west")
_STATES = ("open", "closed", "locked")
_ALWAYS_SHUT = ("oven", "toaster")
"""Containers that need not be shown as closed."""
_CUTS = ("chopped", "sliced", "diced")
_COOKINGS = ("roasted", "fried", "grilled")


class Scene:
    """The facts, indexed by what a description needs."""

    def __init__(self, facts: Iterable[Any], names: dict[str, str]) -> None:
        self.names = names
        self.room = ""
        """Identifiers, not names, here and below."""
        self.states: dict[str, set[str]] = defaultdict(set)
        self.held: dict[str, list[Any]] = defaultdict(list)
        """What is in, on or at something."""
        self.exits: dict[str, dict[str, str]] = defaultdict(dict)
        """Room -> direction -> the room there."""
        self.doors: dict[tuple[str, str], str] = {}
        for fact in facts:
            first, *rest = fact.arguments
            if not rest:
                self.states[first.name].add(fact.name)
            elif fact.name == "at" and first.type == "P":
                self.room = rest[0].name
            elif fact.name in ("at", "in", "on"):
                self.held[rest[0].name].append(first)
            elif fact.name.endswith("_of"):
                self.exits[rest[0].name][fact.name.removesuffix("_of")] = first.name
            elif fact.name == "link":
                self.doors[first.name, rest[1].name] = rest[0].name

    def look(self) -> str:
        """The room, what is in it, and the ways out."""
        things = [self._thing(thing) for thing in self._inside(self.room)]
        ways = self.exits[self.room]
        exits = [self._exit(way, ways[way]) for way in _DIRECTIONS if way in ways]
        seen = f" You see: {'; '.join(things)}." if things else ""
        leave = f" Exits: {', '.join(exits)}." if exits else ""
        return f"{self.names[self.room].title()}.{seen}{leave}"

    def inventory(self) -> str:
        """What the player carries, or nothing at all."""
        things = [self._name(thing) for thing in self._inside("I")]
        return f"You carry: {', '.join(things)}." if things else ""

    def holder(self, thing: str) -> str:
        """What a thing is in, on or at."""
        return next((key for key, held in self.held.items() if thing in map(_id, held)), "")

    def _inside(self, holder: str) -> list[Any]:
        # Facts are sets: order by kind and number, the order in which the game was made.
        things = (thing for thing in self.held[holder] if self.names.get(thing.name))
        return sorted(things, key=lambda thing: _natural(thing.name))

    def _name(self, thing: Any) -> str:
        """As the game prints it in a list: with how food is cut and cooked."""
        states, words = self.states[thing.name], []
        words += [cut for cut in _CUTS if cut in states]
        if "needs_cooking" in states:
            words.append("raw")
        elif "burned" in states:
            words.append("burned")
        else:
            words += [way for way in _COOKINGS if way in states]
        return " ".join([*words, self.names[thing.name]])

    def _thing(self, thing: Any) -> str:
        state = next((state for state in _STATES if state in self.states[thing.name]), "")
        if thing.type in _ALWAYS_SHUT and state != "open":
            state = ""
        name = f"{state} {self._name(thing)}".strip()
        if state in ("closed", "locked"):
            return name
        inside = [self._name(other) for other in self._inside(thing.name)]
        if inside:
            return f"{name}: {', '.join(inside)}"
        return f"{name}: nothing" if state == "open" else name

    def _exit(self, way: str, there: str) -> str:
        door = self.doors.get((self.room, there))
        if door is None:
            return way
        state = next((state for state in _STATES if state in self.states[door]), "")
        return f"{state} {self.names[door]} {way}".strip()


def _natural(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.*?)_?(\d*)", name)
    assert found is not None
    return found[1], int(found[2] or 0)


def _id(thing: Any) -> str:
    return str(thing.name)
