"""ALFWorld's own tables: floor plans, what fits where, domain and grammar, read from its wheel.

Importing the package ``alfworld`` would make a folder in the user's home and change the
environment, so its data files are read where they are installed and it is never imported.
"""

from __future__ import annotations

import json
import runpy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from agentgym.errors import MissingExtra

ENV = "agentgym/ALFWorld-v0"

KINDS_OF_ROOM = {0: "Kitchen", 2: "LivingRoom", 3: "Bedroom", 4: "Bathroom"}
"""Hundreds of a floor plan's number -> the room it is."""
PLANS = tuple(100 * hundred + n for hundred in KINDS_OF_ROOM for n in range(1, 31))
"""The 120 floor plans."""

Pose = tuple[int, int, int, int]
"""Where to stand: x and z in steps of 0.25 m, quarter turns, degrees of the view down."""


@dataclass(frozen=True)
class Tables:
    """What is true of classes of objects everywhere."""

    receptacles: frozenset[str]
    """Classes that hold objects and stay where they are."""
    containers: frozenset[str]
    """Classes of objects that may hold others, such as a bowl."""
    openable: frozenset[str]
    contents: dict[str, frozenset[str]]
    """Class of receptacle -> classes of objects that fit in or on it."""
    abilities: dict[str, frozenset[str]]
    """``cleanable``, ``heatable``, ``coolable``, ``sliceable``, ``toggleable`` -> classes."""
    rooms: dict[str, frozenset[str]]
    """Task type -> kinds of room that have it."""
    objects: frozenset[str]
    """Every class of object that is no receptacle."""

    @property
    def pickupable(self) -> frozenset[str]:
        """Classes that fit somewhere, so that a player who took one can put it down again."""
        return frozenset().union(*self.contents.values())


@dataclass(frozen=True)
class Layout:
    """One floor plan."""

    receptacles: tuple[tuple[str, Pose], ...]
    """Ids such as ``Drawer|+00.64|+00.27|-00.65``, and where to stand for each, sorted."""
    objects: tuple[str, ...]
    """Classes of objects in this room, receptacles included, sorted."""
    floor: tuple[tuple[int, int], ...]
    """Where one can stand: x and z in steps of 0.25 m."""


@cache
def _root() -> Path:
    try:
        return Path(str(distribution("alfworld").locate_file("alfworld")))
    except PackageNotFoundError:
        raise MissingExtra(
            f"{ENV} needs the tables in ALFWorld's wheel, and nothing that the wheel asks for: "
            f'pip install --no-deps "alfworld>=0.4.2,<0.5"'
        ) from None


@cache
def tables() -> Tables:
    """The tables of classes.

    Raises:
        MissingExtra: ALFWorld is not installed.
    """
    names = runpy.run_path(str(_root() / "gen" / "constants.py"))
    movable = frozenset(names["MOVABLE_RECEPTACLES"])
    fixed = frozenset(names["RECEPTACLES"]) - movable
    fits = {key: frozenset(value) for key, value in names["VAL_RECEPTACLE_OBJECTS"].items()}
    return Tables(
        receptacles=fixed,
        containers=movable,
        openable=frozenset(names["OPENABLE_CLASS_LIST"]),
        contents={key: fits[key] for key in sorted(fixed & fits.keys())},
        abilities={
            key.lower(): frozenset(value) for key, value in names["VAL_ACTION_OBJECTS"].items()
        },
        rooms={key: frozenset(value) for key, value in names["GOALS_VALID"].items()},
        objects=frozenset(names["OBJECTS"]) | movable - fixed,
    )


@cache
def layout(plan: int) -> Layout:
    """One floor plan, by its number.

    Raises:
        MissingExtra: ALFWorld is not installed.
    """
    folder = _root() / "gen" / "layouts"
    poses = json.loads((folder / f"FloorPlan{plan}-openable.json").read_text(encoding="utf-8"))
    objects = json.loads((folder / f"FloorPlan{plan}-objects.json").read_text(encoding="utf-8"))
    floor = np.load(folder / f"FloorPlan{plan}-layout.npy", allow_pickle=False)
    return Layout(
        receptacles=tuple((id_, _pose(*poses[id_])) for id_ in sorted(poses)),
        objects=tuple(sorted(set(objects))),
        floor=tuple(sorted({(round(4 * x), round(4 * z)) for x, z in floor.tolist()})),
    )


def _pose(x: float, z: float, degrees: float, view: float) -> Pose:
    return round(4 * x), round(4 * z), round(degrees / 90) % 4, round(view)


def domain() -> str:
    """The rules of the environment, in PDDL, as the reference engine reads them."""
    return (_root() / "data" / "alfred.pddl").read_text(encoding="utf-8")


def grammar() -> str:
    """The texts of the environment, as the reference engine reads them, with a goal left open."""
    return (_root() / "data" / "alfred.twl2").read_text(encoding="utf-8")
