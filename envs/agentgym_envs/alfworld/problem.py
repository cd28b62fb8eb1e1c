"""A game as facts: reading and writing problems of the ALFRED domain in PDDL."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from agentgym.errors import EnvError

Fact = tuple[str, ...]
"""A predicate and its arguments, in lower case."""
Tree = list["Tree | str"]

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six families, in the official order: number 1 comes first."""

TREATMENTS = {
    "pick_clean_then_place_in_recep": ("cleanable", "isclean"),
    "pick_heat_then_place_in_recep": ("heatable", "ishot"),
    "pick_cool_then_place_in_recep": ("coolable", "iscool"),
}
"""Task type -> what an object must allow, and what must have been done to it."""


class Goal(NamedTuple):
    """What is to be achieved, with classes in lower case."""

    task_type: str
    thing: str
    """Class of the object to handle."""
    target: str
    """Class of the receptacle it belongs in, or of the lamp to look at it under."""
    lamp_here: bool = False
    """The lamp itself, and not what it stands on, must be at the player's location."""


@dataclass(frozen=True)
class Problem:
    """Entities, what is true of them at the start, and the goal."""

    types: Mapping[str, str]
    """Entity -> agent, location, receptacle, object, rtype or otype."""
    facts: frozenset[Fact]
    goal: Goal


# ---- reading ---------------------------------------------------------------------------------


def read(text: str) -> Problem:
    """Read a problem; distances and costs are left out, they change nothing.

    Raises:
        EnvError: The text is no such problem, or its goal is none of the six families.
    """
    tokens = iter(re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text).lower()))
    try:
        if next(tokens) != "(":
            raise EnvError("not a PDDL problem: it does not begin with a parenthesis")
        sections = {part[0]: part[1:] for part in _tree(tokens) if isinstance(part, list) and part}
        names = [word for word in sections[":objects"] if isinstance(word, str)]
        facts = frozenset(_facts(sections[":init"]))
        return Problem(_types(names), facts, _goal(sections[":goal"]))
    except (StopIteration, RuntimeError, KeyError, IndexError, TypeError) as problem:
        raise EnvError(f"not a PDDL problem of the ALFRED domain: {problem!r}") from problem


def _tree(tokens: Iterator[str]) -> Tree:
    """What is between an opened parenthesis and its end."""
    stack: list[Tree] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token != ")":
            stack[-1].append(token)
        elif len(stack) == 1:
            return stack[0]
        else:
            done = stack.pop()
            stack[-1].append(done)
    raise EnvError("not a PDDL problem: a parenthesis is not closed")


def _types(words: list[str]) -> dict[str, str]:
    types: dict[str, str] = {}
    waiting: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-":
            types.update(dict.fromkeys(waiting, next(rest)))
            waiting = []
        else:
            waiting.append(word)
    return types


def _facts(init: Tree) -> Iterator[Fact]:
    for part in init:
        if isinstance(part, list) and part[0] != "=":
            yield tuple(word for word in part if isinstance(word, str))


def _goal(section: Tree) -> Goal:
    """Recognise a goal by its conditions; all six families are conjunctions of them."""
    found = list(_conditions(section))
    count = Counter(fact[0] for fact in found)
    objects = [fact for fact in found if fact[0] == "objecttype"]
    places = [fact[2] for fact in found if fact[0] == "receptacletype"]
    if count in (_LOOK, _LOOK_OLD):
        lamps = {fact[1] for fact in found if fact[0] == "istoggled"}
        (lamp,) = [fact[2] for fact in objects if fact[1] in lamps]
        (thing,) = [fact[2] for fact in objects if fact[1] not in lamps]
        return Goal(TASK_TYPES[1], _class(thing), _class(lamp), count == _LOOK_OLD)
    for task_type, expected in _PLACE.items():
        if count == expected and len({*places}) == len({fact[2] for fact in objects}) == 1:
            return Goal(task_type, _class(objects[0][2]), _class(places[0]))
    raise EnvError(
        f"the goal is none of ALFWorld's six families; its conditions are {sorted(count)}"
    )


def _conditions(tree: Tree) -> Iterator[Fact]:
    """The leaves of a goal: facts about variables, and how often two must differ."""
    if tree and tree[0] == "exists":
        tree = tree[2:]
    if tree and all(isinstance(word, str) for word in tree) and tree != ["and"]:
        yield tuple(str(word) for word in tree)
        return
    for part in tree:
        if isinstance(part, list):
            yield from _conditions(part)


_PUT = {"inreceptacle": 1, "objecttype": 1, "receptacletype": 1}
_PLACE: dict[str, dict[str, int]] = {
    TASK_TYPES[0]: _PUT,
    **{name: {**_PUT, able: 1, done: 1} for name, (able, done) in TREATMENTS.items()},
    TASK_TYPES[5]: {"inreceptacle": 2, "objecttype": 2, "receptacletype": 2, "=": 1},
}
_LAMP = {"objecttype": 2, "toggleable": 1, "istoggled": 1, "atlocation": 1, "holds": 1}
_LOOK = {**_LAMP, "receptacleatlocation": 1, "inreceptacle": 1}
_LOOK_OLD = {**_LAMP, "objectatlocation": 1}


def _class(name: str) -> str:
    return name.removesuffix("type")


# ---- writing ---------------------------------------------------------------------------------


def write(problem: Problem, name: str) -> str:
    """The problem as PDDL that the reference engine reads."""
    groups: dict[str, list[str]] = {}
    for entity, type_ in problem.types.items():
        groups.setdefault(type_, []).append(entity)
    objects = [f"{entity} - {type_}" for type_, group in groups.items() for entity in group]
    facts = [f"({' '.join(fact)})" for fact in sorted(problem.facts)]
    gap = "\n        "
    return (
        f"(define (problem {name})\n    (:domain alfred)\n    (:objects{gap}{gap.join(objects)}\n"
        f"    )\n    (:init{gap}(= (total-cost) 0){gap}{gap.join(facts)}\n    )\n"
        f"    (:goal (and {_goal_text(problem.goal)}))\n"
        f"    (:metric minimize (total-cost))\n)\n"
    )


def _goal_text(goal: Goal) -> str:
    if goal.task_type == TASK_TYPES[1]:
        where = "(receptacleatlocation ?r ?l) (inreceptacle ?lamp ?r)"
        return (
            f"(exists (?lamp - object ?r - receptacle ?a - agent ?l - location) (and (objecttype "
            f"?lamp {goal.target}type) (toggleable ?lamp) (istoggled ?lamp) (atlocation ?a ?l) "
            f"{'(objectatlocation ?lamp ?l)' if goal.lamp_here else where})) (exists "
            f"(?o - object ?a - agent) (and (objecttype ?o {goal.thing}type) (holds ?a ?o)))"
        )
    rule = " ".join(f"({word} ?o)" for word in TREATMENTS.get(goal.task_type, ()))
    put = f"(objecttype ?o {goal.thing}type) (receptacletype ?r {goal.target}type) " + (
        "(inreceptacle ?o ?r)"
    )
    if goal.task_type == TASK_TYPES[5]:
        second = put.replace("?o", "?o2")
        rule = f"(exists (?o2 - object) (and (not (= ?o ?o2)) {second}))"
    return f"(exists (?r - receptacle) (exists (?o - object) (and {put} {rule})))"
