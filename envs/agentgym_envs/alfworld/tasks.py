"""Task ids of generated games: strings that fully define a game, and the panels made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import NamedTuple, TypeVar

from agentgym.env.base import unknown_split, unknown_task
from agentgym.errors import ConfigError, did_you_mean
from agentgym_envs.alfworld import tables
from agentgym_envs.alfworld.problem import TASK_TYPES
from agentgym_envs.alfworld.tables import ENV

T = TypeVar("T")

SPLITS = ("train", "valid_seen", "valid_unseen")
ALIASES = {"valid": "valid_seen", "test": "valid_unseen"}
"""The names that every environment knows -> the official ones."""
FIRST_SEEDS = {"train": 0, "valid_seen": 1_000_000, "valid_unseen": 2_000_000}
UNSEEN = (10, 219, 308, 424)
"""Floor plans of valid_unseen, one of each kind of room; the other 116 are for the other splits."""
SHARES = dict(zip(TASK_TYPES, (790, 308, 650, 459, 533, 813), strict=True))
"""How many games of each family the official train split has; panels keep these proportions."""

TOOLS = {
    "pick_clean_then_place_in_recep": ("cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("coolable", "Fridge"),
}
ROOMS = tuple(tables.KINDS_OF_ROOM.values())
LAMPS = ("DeskLamp", "FloorLamp")
LAMP_STANDS = ("CoffeeTable", "Desk", "DiningTable", "Dresser", "Shelf", "SideTable")
EXTRA = {"Sink": "SinkBasin", "Bathtub": "BathtubBasin"}
"""Floor plans list these; what holds things is their basin."""

_ID = re.compile(
    rf"(?P<type>{'|'.join(TASK_TYPES)})-(?P<thing>[A-Za-z]+)-None-(?P<target>[A-Za-z]+)"
    r"-(?P<plan>[1-9][0-9]{0,2})-s(?P<seed>0|[1-9][0-9]{0,8})"
)


class Spec(NamedTuple):
    """A parsed task id."""

    task_type: str
    thing: str
    target: str
    """Class of the receptacle to fill, or of the lamp."""
    plan: int
    seed: int

    @property
    def name(self) -> str:
        """Without the seed: what the official data names its folders."""
        return f"{self.task_type}-{self.thing}-None-{self.target}-{self.plan}"

    @property
    def id(self) -> str:
        """The whole task id."""
        return f"{self.name}-s{self.seed}"


def parse(task: str) -> Spec:
    """Read a task id.

    Raises:
        UnknownTask: It is not one, or its floor plan has no such task.
        MissingExtra: ALFWorld is not installed.
    """
    found = _ID.fullmatch(task)
    if found and int(found["plan"]) in tables.PLANS:
        plan = int(found["plan"])
        if (found["thing"], found["target"]) in pairs(found["type"], plan):
            return Spec(found["type"], found["thing"], found["target"], plan, int(found["seed"]))
    raise unknown_task(ENV, task, ["pick_heat_then_place_in_recep-Egg-None-Fridge-10-s2000000"])


@cache
def receptacles(plan: int) -> tuple[str, ...]:
    """Classes of receptacles of a floor plan, sorted."""
    layout, known = tables.layout(plan), tables.tables().receptacles
    placed = {EXTRA.get(id_.split("|")[0], id_.split("|")[0]) for id_, _ in layout.receptacles}
    return tuple(sorted((placed | set(layout.objects)) & known))


@cache
def pairs(task_type: str, plan: int) -> tuple[tuple[str, str], ...]:
    """The pairs of thing and target for which a floor plan has tasks of a type, sorted."""
    classes, layout = tables.tables(), tables.layout(plan)
    room = tables.KINDS_OF_ROOM[plan // 100]
    here = receptacles(plan)
    ability, tool = TOOLS.get(task_type, ("", ""))
    things = [
        thing
        for thing in layout.objects
        if thing in classes.pickupable and (not ability or thing in classes.abilities[ability])
    ]
    if room not in classes.rooms[task_type] or (tool and tool not in here):
        return ()
    if task_type == "look_at_obj_in_light":
        lamps = [lamp for lamp in LAMPS if lamp in layout.objects]
        stands = any(stand in here for stand in LAMP_STANDS)
        homes = frozenset().union(*(classes.contents.get(place, ()) for place in here))
        return tuple((o, lamp) for o in things for lamp in lamps if stands and o in homes)
    return tuple(
        (thing, target)
        for thing in things
        for target in here
        if target != tool
        and thing in classes.contents.get(target, ())
        # It must lie somewhere else at the start.
        and any(thing in classes.contents.get(r, ()) for r in here if r != target)
    )


def families(names: str) -> tuple[str, ...]:
    """Task types from ``all``, or from names or official numbers joined by commas.

    Raises:
        ConfigError: There is no such family.

    Examples:
        >>> families("1,look_at_obj_in_light")
        ('pick_and_place_simple', 'look_at_obj_in_light')
    """
    if names == "all":
        return TASK_TYPES
    numbered = {str(number): name for number, name in enumerate(TASK_TYPES, 1)}
    chosen = [numbered.get(name.strip(), name.strip()) for name in names.split(",")]
    for name in chosen:
        if name not in TASK_TYPES:
            raise ConfigError(
                f"{ENV} has no task type {name!r}.{did_you_mean(name, TASK_TYPES)} Task types: "
                f"{', '.join(TASK_TYPES)}, or their numbers 1 to 6, joined by commas, or all"
            )
    return tuple(name for name in TASK_TYPES if name in chosen)


def official_split(split: str) -> str:
    """The official name of a split.

    Raises:
        ConfigError: There is no such split.
    """
    name = ALIASES.get(split, split)
    if name not in SPLITS:
        raise unknown_split(ENV, split, (*SPLITS, *ALIASES))
    return name


def kinds_of_room(names: str) -> tuple[str, ...]:
    """Kinds of room from ``all``, or from names joined by commas.

    Raises:
        ConfigError: There is no such kind.

    Examples:
        >>> kinds_of_room("Bathroom,Kitchen")
        ('Kitchen', 'Bathroom')
    """
    chosen = ROOMS if names == "all" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in ROOMS:
            raise ConfigError(
                f"{ENV} has no kind of room {name!r}.{did_you_mean(name, ROOMS)} Kinds: "
                f"{', '.join(ROOMS)}, joined by commas, or all"
            )
    return tuple(name for name in ROOMS if name in chosen)


def panel_ids(
    split: str, count: int, types: Sequence[str], rooms: Sequence[str] = ROOMS
) -> tuple[str, ...]:
    """The generated tasks of a split: for each seed a family, a floor plan, a pair of classes.

    Raises:
        ConfigError: There is no such split, or a family has no task in these rooms.
        MissingExtra: ALFWorld is not installed.
    """
    name = official_split(split)
    within = [plan for plan in tables.PLANS if tables.KINDS_OF_ROOM[plan // 100] in rooms]
    plans = [plan for plan in within if (plan in UNSEEN) == (name == "valid_unseen")]
    first = FIRST_SEEDS[name]
    choice = {name: [plan for plan in plans if pairs(name, plan)] for name in types}
    for family in types:
        if not choice[family]:
            raise ConfigError(f"{ENV} has no {family} in {', '.join(rooms)}: choose other rooms")
    return tuple(_draw(first + i, choice).id for i in range(count))


def _draw(seed: int, plans: Mapping[str, Sequence[int]]) -> Spec:
    """The task of a seed, from the floor plans that each family can have."""
    rng = Random(f"{ENV} {seed}")
    ticket = rng.random() * sum(SHARES[name] for name in plans)
    task_type, *later = plans
    for other in later:
        ticket -= SHARES[task_type]
        if ticket < 0:
            break
        task_type = other
    plan = pick(rng, plans[task_type])
    thing, target = pick(rng, pairs(task_type, plan))
    return Spec(task_type, thing, target, plan, seed)


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options. ``Random.random`` is the one draw that Python promises to keep."""
    return options[int(rng.random() * len(options))]
