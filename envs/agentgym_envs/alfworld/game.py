"""What is fixed about a game, and the state that changes: both immutable, shared by all forks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentgym.errors import EnvError
from agentgym_envs.alfworld.problem import Goal, Problem
from agentgym_envs.alfworld.wording import Wording

NOTHING = -1
"""In place of the number of an object, a receptacle or a location: none."""


class Move(NamedTuple):
    """A command that means something: what to do, with which thing, at which place."""

    verb: str
    thing: int = NOTHING
    place: int = NOTHING


class Place(NamedTuple):
    """A receptacle. Places and things are numbered by their ids, ascending."""

    name: str
    kind: str
    location: int
    openable: bool
    holds: frozenset[str]
    """Kinds of things that fit."""


class Thing(NamedTuple):
    """An object."""

    name: str
    kind: str
    abilities: frozenset[str]
    """Of pickupable, cleanable, heatable, coolable, sliceable, toggleable, isreceptacleobject."""
    inside: tuple[str, ...]
    """Names of what lies in it, if it is a container; that never changes."""


class State(NamedTuple):
    """Everything that changes. A number stands for a place, a thing or a location."""

    location: int
    held: int
    contents: tuple[tuple[int, ...], ...]
    """For each place, what is in or on it, ascending."""
    opened: frozenset[int] = frozenset()
    near: frozenset[tuple[int, int]] = frozenset()
    """A thing and the location it can be sliced or seen at."""
    clean: frozenset[int] = frozenset()
    hot: frozenset[int] = frozenset()
    cool: frozenset[int] = frozenset()
    toggled: frozenset[int] = frozenset()
    sliced: frozenset[int] = frozenset()
    taken: frozenset[tuple[int, int]] = frozenset()
    """A thing and a place it was taken from and not put back to; `look` talks about them."""
    seen: frozenset[int] = frozenset()
    """Places with contents that the player was shown. No rule depends on it."""


@dataclass(frozen=True, eq=False)
class Game:
    """What is fixed."""

    goal: Goal
    task: str
    """The goal as a sentence."""
    wording: Wording
    places: tuple[Place, ...]
    things: tuple[Thing, ...]
    locations: tuple[str, ...]
    """Their names, which only the old wording shows."""
    at: tuple[tuple[int, ...], ...]
    """For each location, its places."""
    always: tuple[dict[str, Move], ...]
    """For each location, the commands that mean something there in every state."""
    wanted: frozenset[int]
    """Things of the goal's class."""
    targets: tuple[int, ...]
    """Places of the goal's class; for a goal of light, the lamps."""
    start: State


def names(ids: Iterable[str]) -> dict[str, str]:
    """What the game calls its entities: the class and a number, highest for the lowest id.

    Examples:
        >>> names(["cup_bar_1", "cup_bar_2", "sink_bar_1_bar_sinkbasin"])["cup_bar_1"]
        'cup 2'
    """
    ordered = sorted(ids)
    kinds = {id_: _kind(id_) for id_ in ordered if "_bar_" in id_}
    left = Counter(kinds.values())
    called: dict[str, str] = {}
    for id_ in ordered:
        if id_ in kinds:
            called[id_] = f"{kinds[id_]} {left[kinds[id_]]}"
            left[kinds[id_]] -= 1
        else:
            called[id_] = f"{id_} "
    return called


def _kind(id_: str) -> str:
    return id_.split("_bar_", 1)[0] + ("basin" if "basin" in id_ else "")


_STATIC = ("pickupable", "cleanable", "heatable", "coolable", "sliceable", "toggleable")
_CHANGING = ("opened", "isclean", "ishot", "iscool", "istoggled", "issliced")


def build(problem: Problem, task: str, wording: Wording) -> Game:
    """A game from its facts.

    Raises:
        EnvError: The facts lack the location of the player, or put a receptacle at two locations.
    """
    facts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for predicate, *arguments in problem.facts:
        facts[predicate].append(tuple(arguments))
    called = names({word for fact in problem.facts for word in fact[1:]})
    ids = {type_: _ids(problem, type_, called) for type_ in ("receptacle", "object", "location")}
    number = {id_: i for group in ids.values() for i, id_ in enumerate(group)}
    where = _pairs(facts["receptacleatlocation"])
    if len(facts["atlocation"]) != 1 or len(where) != len(facts["receptacleatlocation"]):
        raise EnvError("a game needs one player, and each receptacle at one location at most")
    holds: dict[str, set[str]] = defaultdict(set)
    for rtype, otype in facts["cancontain"]:
        holds[rtype].add(otype.removesuffix("type"))
    rtype_of, otype_of = _pairs(facts["receptacletype"]), _pairs(facts["objecttype"])
    openable = {id_ for (id_,) in facts["openable"]}
    places = tuple(
        Place(
            called[id_],
            rtype_of.get(id_, "").removesuffix("type"),
            number[where[id_]] if id_ in where else NOTHING,
            id_ in openable,
            frozenset(holds[rtype_of.get(id_, "")]),
        )
        for id_ in ids["receptacle"]
    )
    things = tuple(
        Thing(
            called[id_],
            otype_of.get(id_, "").removesuffix("type"),
            frozenset(word for word in (*_STATIC, "isreceptacleobject") if (id_,) in facts[word]),
            tuple(called[o] for o, outer in sorted(facts["inreceptacleobject"]) if outer == id_),
        )
        for id_ in ids["object"]
    )
    start = _start(facts, number, len(places))
    at = tuple(
        tuple(r for r, place in enumerate(places) if place.location == location)
        for location in range(len(ids["location"]))
    )
    goal = problem.goal
    lamps = [o for o, thing in enumerate(things) if _is_lamp(thing, goal)]
    return Game(
        goal,
        task,
        wording,
        places,
        things,
        tuple(called[id_] for id_ in ids["location"]),
        at,
        tuple(_always(places, wording, location) for location in range(len(at))),
        frozenset(o for o, thing in enumerate(things) if thing.kind == goal.thing),
        tuple(lamps or (r for r, place in enumerate(places) if place.kind == goal.target)),
        start,
    )


def _is_lamp(thing: Thing, goal: Goal) -> bool:
    wants_light = goal.task_type == "look_at_obj_in_light"
    return wants_light and thing.kind == goal.target and "toggleable" in thing.abilities


def _always(places: Sequence[Place], wording: Wording, location: int) -> dict[str, Move]:
    found = {"look": Move("look"), "inventory": Move("inventory")}
    if wording.help:
        found["help"] = Move("help")
    for r, place in enumerate(places):
        if place.location == location:
            found[f"examine {place.name}"] = Move("examine place", place=r)
        elif place.location != NOTHING:
            found[f"go to {place.name}"] = Move("go", place=r)
    return found


def _pairs(facts: list[tuple[str, ...]]) -> dict[str, str]:
    return {fact[0]: fact[1] for fact in facts}


def _ids(problem: Problem, type_: str, known: dict[str, str]) -> list[str]:
    return sorted(id_ for id_, kind in problem.types.items() if kind == type_ and id_ in known)


def _start(facts: dict[str, list[tuple[str, ...]]], number: dict[str, int], places: int) -> State:
    contents: list[list[int]] = [[] for _ in range(places)]
    for thing, place in facts["inreceptacle"]:
        contents[number[place]].append(number[thing])
    changing = {word: frozenset(number[id_] for (id_,) in facts[word]) for word in _CHANGING}
    return State(
        location=number[facts["atlocation"][0][1]],
        held=number[facts["holds"][0][1]] if facts["holds"] else NOTHING,
        contents=tuple(tuple(sorted(inside)) for inside in contents),
        near=frozenset((number[o], number[at]) for o, at in facts["objectatlocation"]),
        opened=changing["opened"],
        clean=changing["isclean"],
        hot=changing["ishot"],
        cool=changing["iscool"],
        toggled=changing["istoggled"],
        sliced=changing["issliced"],
    )
