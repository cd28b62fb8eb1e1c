"""Making games: things spread over a real floor plan so that a task can be done."""

from __future__ import annotations

from functools import cache
from random import Random

from agentgym.errors import EnvError
from agentgym_envs.alfworld import tables
from agentgym_envs.alfworld.problem import Fact, Goal, Problem
from agentgym_envs.alfworld.tables import Pose
from agentgym_envs.alfworld.tasks import EXTRA, LAMP_STANDS, LAMPS, Spec, pick

WEIGHTS = {
    **dict.fromkeys(("CounterTop", "DiningTable", "Desk", "CoffeeTable", "Dresser"), 6.0),
    **dict.fromkeys(("SideTable", "Bed", "Sofa", "SinkBasin", "Fridge", "TVStand", "Cart"), 4.0),
    **dict.fromkeys(("ArmChair", "Shelf", "Ottoman", "Toilet", "GarbageCan", "Safe"), 2.0),
}
"""How likely a thing is to lie in one receptacle of a class; 1 for the others."""
ROOMY = {**dict.fromkeys(WEIGHTS, 8), "Shelf": 3, "Toilet": 2, "ArmChair": 3, "Ottoman": 3}
"""How many things one receptacle of a class has at the start at most; 3 for the others."""
NARROW = ("CoffeeMachine", "HandTowelHolder", "StoveBurner", "Toaster", "ToiletPaperHanger")
"""These have one."""
SETS = {"StoveBurner": 4, "HandTowelHolder": 2, "TowelHolder": 2}
"""How many of a class a plan has if it lists the class but no place; 1 of the others."""
DECOR = {
    "HousePlant": ("DiningTable", "SideTable", "CoffeeTable", "Shelf", "Dresser", "CounterTop"),
    "Television": ("TVStand", "Dresser", "Desk", "SideTable"),
    "Mirror": ("Dresser", "CounterTop"),
    **dict.fromkeys(LAMPS, LAMP_STANDS),
}
"""Fixed objects, and where they stand."""

SENTENCES = {
    "pick_and_place_simple": ("put a {obj} in {recep}", "put some {obj} on {recep}"),
    "look_at_obj_in_light": (
        "look at {obj} under the {recep}",
        "examine the {obj} with the {recep}",
    ),
    "pick_clean_then_place_in_recep": (
        "put a clean {obj} in {recep}",
        "clean some {obj} and put it in {recep}",
    ),
    "pick_heat_then_place_in_recep": (
        "put a hot {obj} in {recep}",
        "heat some {obj} and put it in {recep}",
    ),
    "pick_cool_then_place_in_recep": (
        "put a cool {obj} in {recep}",
        "cool some {obj} and put it in {recep}",
    ),
    "pick_two_obj_and_place": (
        "put two {obj} in {recep}",
        "find two {obj} and put them in {recep}",
    ),
}
"""The goal sentences of the game, two for each family."""


class NoRoom(EnvError):
    """A thing that the task needs found no place; the next attempt may be luckier."""


def generate(spec: Spec, attempt: int = 0) -> tuple[Problem, str]:
    """The facts of a game and its goal as a sentence; equal on every machine.

    Args:
        spec: The parsed task id.
        attempt: Each draws other things and places.

    Raises:
        NoRoom: This attempt failed.
        MissingExtra: ALFWorld is not installed.
    """
    rng = Random(f"{spec.id} {attempt}")
    places = receptacles(spec.plan)
    inside = _spread(rng, spec, places)
    goal = Goal(spec.task_type, spec.thing.lower(), spec.target.lower())
    sentence = pick(rng, SENTENCES[spec.task_type])
    start = _standing(rng, spec.plan, set(places.values()))
    facts = {*_class_facts(), *_place_facts(places), *_thing_facts(inside, places)}
    facts.add(("atlocation", "agent1", start))
    types = {fact[1]: "receptacle" for fact in facts if fact[0] == "receptacletype"}
    types |= {fact[1]: "object" for fact in facts if fact[0] == "objecttype"}
    types |= dict.fromkeys((*places.values(), start), "location")
    types |= {"agent1": "agent", **_class_types()}
    problem = Problem(dict(sorted(types.items())), frozenset(facts), goal)
    return problem, sentence.format(obj=goal.thing, recep=goal.target)


# ---- the room --------------------------------------------------------------------------------


@cache
def receptacles(plan: int) -> dict[str, str]:
    """The receptacles of a floor plan and the location of each, by their real ids.

    Classes that the plan's list names without a place, such as stove burners, get one here.
    """
    layout, known = tables.layout(plan), tables.tables().receptacles
    found = {
        id_: location(pose)
        for id_, pose in layout.receptacles
        if EXTRA.get(id_.split("|")[0], id_.split("|")[0]) in known
    }
    classes = {kind_of(id_) for id_ in found}
    rng = Random(f"floor plan {plan}")
    for kind in sorted(set(layout.objects) & known - classes):
        front, back = next(((a, f"|{b}") for a, b in EXTRA.items() if b == kind), (kind, ""))
        for _ in range(SETS.get(kind, 1)):
            x, z = pick(rng, layout.floor)
            height, turn = 0.3 + 0.8 * rng.random(), int(4 * rng.random())
            id_ = f"{front}|{x / 4:+06.2f}|{height:+06.2f}|{z / 4:+06.2f}{back}"
            found[id_] = location((x, z, turn, 30))
    return found


def location(pose: Pose) -> str:
    """The id of a location."""
    return mangled("loc|{}|{}|{}|{}".format(*pose))


def kind_of(id_: str) -> str:
    """The class in the id of a receptacle or an object."""
    first = id_.split("|")[0]
    return EXTRA.get(first, first)


def mangled(id_: str) -> str:
    """An id as PDDL can hold it, in lower case.

    Examples:
        >>> mangled("Cup|-01.24|+00.97")
        'cup_bar__minus_01_dot_24_bar__plus_00_dot_97'
    """
    for sign, word in (("-", "minus"), ("|", "bar"), ("+", "plus"), (".", "dot")):
        id_ = id_.replace(sign, f"_{word}_")
    return id_.lower()


def _standing(rng: Random, plan: int, taken: set[str]) -> str:
    """Where the player starts: somewhere no receptacle is at hand."""
    spots = [location((x, z, 0, 0)) for x, z in tables.layout(plan).floor]
    return pick(rng, [spot for spot in spots if spot not in taken])


# ---- the things ------------------------------------------------------------------------------


def _spread(rng: Random, spec: Spec, places: dict[str, str]) -> dict[str, str]:
    """Ids of things and the receptacle each lies in."""
    fits = tables.tables().contents
    left = {id_: 1 if kind_of(id_) in NARROW else ROOMY.get(kind_of(id_), 3) for id_ in places}
    inside: dict[str, str] = {}
    for kind, needed, number in _inventory(rng, spec):
        for i in range(number):
            weights = {
                id_: WEIGHTS.get(kind_of(id_), 1.0)
                for id_, free in left.items()
                if free
                and (kind in fits.get(kind_of(id_), ()) or kind_of(id_) in DECOR.get(kind, ()))
                and not (kind == spec.thing and kind_of(id_) == spec.target)
            }
            if weights:
                home = _weighted(rng, weights)
                left[home] -= 1
                inside[_thing_id(rng, kind, inside)] = home
            elif i < needed:
                raise NoRoom(f"{spec.id}: no place for a {kind}")
    return inside


def _inventory(rng: Random, spec: Spec) -> list[tuple[str, int, int]]:
    """Classes of things in a room: how many are needed, how many to place; needed ones first."""
    classes = tables.tables()
    pair = spec.task_type == "pick_two_obj_and_place"
    lamp = [(spec.target, 1, 1)] if spec.target in LAMPS else []
    wanted = (
        (spec.thing, 2, 2 + int(3 * rng.random()))
        if pair
        else (spec.thing, 1, 1 + int(3 * rng.random()))
    )
    needed = [*lamp, wanted]
    others = [
        (kind, 0, 1 if kind in DECOR else 1 + int(2.5 * rng.random()))
        for kind in tables.layout(spec.plan).objects
        if (kind in classes.pickupable or kind in DECOR)
        and kind not in (spec.thing, spec.target if lamp else "")
    ]
    return needed + others


def _weighted(rng: Random, weights: dict[str, float]) -> str:
    ticket = rng.random() * sum(weights.values())
    for option, weight in weights.items():
        ticket -= weight
        if ticket < 0:
            return option
    return next(reversed(weights))


def _thing_id(rng: Random, kind: str, taken: dict[str, str]) -> str:
    while True:
        spots = [8 * rng.random() - 4 for _ in range(3)]
        id_ = "|".join([kind, *(f"{spot:+06.2f}" for spot in spots)])
        if id_ not in taken:
            return id_


# ---- the facts -------------------------------------------------------------------------------


@cache
def _class_facts() -> frozenset[Fact]:
    contents = tables.tables().contents
    return frozenset(
        ("cancontain", f"{place}type".lower(), f"{thing}type".lower())
        for place, things in contents.items()
        for thing in things
    )


@cache
def _class_types() -> dict[str, str]:
    classes = tables.tables()
    things = classes.objects.union(*classes.contents.values(), DECOR)
    return {
        **{f"{name}type".lower(): "otype" for name in things - classes.receptacles},
        **{f"{name}type".lower(): "rtype" for name in classes.receptacles},
    }


def _place_facts(places: dict[str, str]) -> set[Fact]:
    facts: set[Fact] = set()
    for id_, where in places.items():
        name = mangled(id_)
        facts.add(("receptacletype", name, f"{kind_of(id_)}type".lower()))
        facts.add(("receptacleatlocation", name, where))
        if kind_of(id_) in tables.tables().openable:
            facts.add(("openable", name))
    return facts


def _thing_facts(inside: dict[str, str], places: dict[str, str]) -> set[Fact]:
    classes = tables.tables()
    facts: set[Fact] = set()
    for id_, home in inside.items():
        name, kind = mangled(id_), id_.split("|")[0]
        facts.add(("objecttype", name, f"{kind}type".lower()))
        facts.add(("inreceptacle", name, mangled(home)))
        facts.add(("objectatlocation", name, places[home]))
        facts |= {(able, name) for able, kinds in classes.abilities.items() if kind in kinds}
        if kind in classes.pickupable:
            facts.add(("pickupable", name))
        if kind in classes.containers:
            facts.add(("isreceptacleobject", name))
    return facts
