"""The rules: which commands a state allows, what each does, and the answers of the game.

Step for step what TextWorld's PDDL engine does with ALFWorld's domain and grammar, quirks included;
``scripts/differential_alfworld.py`` compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from agentgym_envs.alfworld.game import NOTHING, Game, Move, State

NOTHING_HAPPENS = "Nothing happens."
_PUTTING = re.compile(r"move (.+) to (.+)"), re.compile(r"put (.+) in/on (.+)")
_KNIVES = ("knife", "butterknife")
_TREATING = {
    "sinkbasin": ("cleanable", "clean"),
    "microwave": ("heatable", "heat"),
    "fridge": ("coolable", "cool"),
}


def moves(game: Game, state: State) -> dict[str, Move]:
    """Every command that means something now."""
    found = dict(game.always[state.location])
    here = game.at[state.location]
    for r in here:
        place = game.places[r]
        if place.openable:
            verb = "close" if r in state.opened else "open"
            found[f"{verb} {place.name}"] = Move(verb, place=r)
        for o in state.contents[r]:
            if "toggleable" in game.things[o].abilities:
                found[f"use {game.things[o].name}"] = Move("use", o, r)
    if state.held == NOTHING:
        _add_taking(found, game, state, here)
    else:
        _add_handling(found, game, state, here)
    return found


def in_words_of(game: Game, command: str) -> str:
    """A command in the game's own wording, if it was given in the other one."""
    for pattern in _PUTTING:
        if found := pattern.fullmatch(command):
            return game.wording.put.format(o=found[1], r=found[2])
    return command


def _add_taking(found: dict[str, Move], game: Game, state: State, here: Sequence[int]) -> None:
    for r in here:
        if accessible(game, state, r):
            for o in state.contents[r]:
                if "pickupable" in game.things[o].abilities:
                    command = f"take {game.things[o].name} from {game.places[r].name}"
                    found[command] = Move("take", o, r)


def _add_handling(found: dict[str, Move], game: Game, state: State, here: Sequence[int]) -> None:
    held = state.held
    thing = game.things[held]
    found[f"examine {thing.name}"] = Move("examine thing", held)
    for r in here:
        place = game.places[r]
        if thing.kind in place.holds and accessible(game, state, r):
            found[game.wording.put.format(o=thing.name, r=place.name)] = Move("put", held, r)
        ability, verb = _TREATING.get(place.kind, ("", ""))
        if ability in thing.abilities:
            found[f"{verb} {thing.name} with {place.name}"] = Move(verb, held, r)
    if thing.kind in _KNIVES:
        for o, location in state.near:
            if location == state.location and "sliceable" in game.things[o].abilities:
                found[f"slice {game.things[o].name} with {thing.name}"] = Move("slice", o)


def accessible(game: Game, state: State, r: int) -> bool:
    """One can reach into a place: it has no door, or it is open."""
    return not game.places[r].openable or r in state.opened


# ---- answers ----------------------------------------------------------------------------


def opening(game: Game) -> str:
    """The first observation."""
    room = listing([f"a {place.name}" for place in game.places if place.location != NOTHING])
    at_hand = game.at[game.start.location]
    seen = _around(game, game.start) if at_hand else _MIDDLE.format(room)
    return f"-= Welcome to TextWorld, ALFRED! =-\n\n{seen}\n\nYour task is to: {game.task}."


def listing(names: Sequence[str]) -> str:
    """A list of names in the sentences of the game.

    Examples:
        >>> listing(["a cup 2", "a cup 1"])
        'a cup 2, and a cup 1'
    """
    if not names:
        return "nothing"
    return ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]


_MIDDLE = "You are in the middle of a room. Looking quickly around you, you see {}."


def _around(game: Game, state: State) -> str:
    here = game.at[state.location]
    if not here:
        # Its grammar lists what is at hand, except in the opening, where that is the whole room.
        return _MIDDLE.format("nothing")
    # The game means things on the floor, but knows only what is no longer where it once was.
    moved = [
        f"a {game.things[o].name}"
        for o, r in sorted(state.taken)
        if r in here and (o, state.location) in state.near
    ]
    facing = listing([game.places[r].name for r in here])
    return f"You are facing the {facing}. Next to it, you see {listing(moved)}."


def _contents(game: Game, state: State, r: int) -> str:
    place = game.places[r]
    if place.openable and r not in state.opened:
        return f"The {place.name} is closed."
    inside = listing([f"a {game.things[o].name}" for o in state.contents[r]])
    if place.openable:
        return f"The {place.name} is open. In it, you see {inside}."
    return f"On the {place.name}, you see {inside}."


def _condition(game: Game, state: State, o: int) -> str:
    """What is special about a thing, in the game's words and its order of precedence."""
    thing = game.things[o]
    if "isreceptacleobject" in thing.abilities:
        inside = listing([f"a {name}" for name in thing.inside])
        return f"This is a normal {thing.name}. In it, you see {inside}."
    clean, hot, cool = o in state.clean, o in state.hot, o in state.cool
    sliced = "sliced " if o in state.sliced else ""
    if clean and (hot or cool):
        return f"This is a {'hot' if hot else 'cool'} and clean {sliced}{thing.name}."
    if sliced and (clean or hot or cool):
        word = "clean" if clean else "hot" if hot else "cool"
        return f"This is a {word} sliced {thing.name}."
    if clean or hot or cool:
        return f"This is a {'hot' if hot else 'clean' if clean else 'cold'} {thing.name}."
    if "toggleable" in thing.abilities and o in state.toggled:
        return f"This {thing.name} is on."
    if "sliceable" in thing.abilities and sliced:
        return f"This is a sliced {thing.name}."
    return f"There's nothing special about {thing.name}."


# ---- what is done ----------------------------------------------------------------------------


def _look(game: Game, state: State, move: Move) -> tuple[State, str]:
    return state, _around(game, state)


def _inventory(game: Game, state: State, move: Move) -> tuple[State, str]:
    if state.held == NOTHING:
        return state, "You are not carrying anything."
    return state, f"You are carrying: a {game.things[state.held].name}."


def _help(game: Game, state: State, move: Move) -> tuple[State, str]:
    return state, game.wording.help


def _go(game: Game, state: State, move: Move) -> tuple[State, str]:
    place = game.places[move.place]
    after = _seeing(game, state._replace(location=place.location), move.place)
    named = place.name if game.wording.arrive_at_place else game.locations[place.location]
    return after, f"You arrive at {named}. {_contents(game, after, move.place)}"


def _examine_place(game: Game, state: State, move: Move) -> tuple[State, str]:
    return _seeing(game, state, move.place), _contents(game, state, move.place)


def _examine_thing(game: Game, state: State, move: Move) -> tuple[State, str]:
    return state, _condition(game, state, move.thing)


def _open(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = _seeing(game, state._replace(opened=state.opened | {move.place}), move.place)
    contents = _contents(game, after, move.place)
    return after, f"You open the {game.places[move.place].name}. {contents}"


def _close(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = state._replace(opened=state.opened - {move.place})
    return after, f"You close the {game.places[move.place].name}."


def _seeing(game: Game, state: State, r: int) -> State:
    if r in state.seen or not accessible(game, state, r):
        return state
    return state._replace(seen=state.seen | {r})


def _take(game: Game, state: State, move: Move) -> tuple[State, str]:
    o, r = move.thing, move.place
    after = state._replace(
        held=o,
        contents=_with(state.contents, r, tuple(i for i in state.contents[r] if i != o)),
        near=state.near - {(o, state.location)},
        taken=state.taken | {(o, r)},
    )
    return after, f"You pick up the {game.things[o].name} from the {game.places[r].name}."


def _put(game: Game, state: State, move: Move) -> tuple[State, str]:
    o, r = move.thing, move.place
    after = state._replace(
        held=NOTHING,
        contents=_with(state.contents, r, tuple(sorted({*state.contents[r], o}))),
        near=state.near | {(o, state.location)},
        taken=state.taken - {(o, r)},
    )
    thing, place = game.things[o].name, game.places[r].name
    done = game.wording.put.format(o=f"the {thing}", r=f"the {place}")
    return after, f"You {done}."


def _with(
    contents: tuple[tuple[int, ...], ...], r: int, inside: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    return (*contents[:r], inside, *contents[r + 1 :])


def _use(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = state._replace(toggled=state.toggled | {move.thing})
    return after, f"You turn on the {game.things[move.thing].name}."


def _slice(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = state._replace(sliced=state.sliced | {move.thing})
    sliced, knife = game.things[move.thing].name, game.things[state.held].name
    return after, f"You sliced the {sliced} with the {knife}."


def _clean(game: Game, state: State, move: Move) -> tuple[State, str]:
    return state._replace(clean=state.clean | {move.thing}), _used(game, move, "clean")


def _heat(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = state._replace(hot=state.hot | {move.thing}, cool=state.cool - {move.thing})
    return after, _used(game, move, "heat")


def _cool(game: Game, state: State, move: Move) -> tuple[State, str]:
    after = state._replace(cool=state.cool | {move.thing}, hot=state.hot - {move.thing})
    return after, _used(game, move, "cool")


def _used(game: Game, move: Move, verb: str) -> str:
    thing, place = game.things[move.thing].name, game.places[move.place].name
    return f"You {verb} the {thing} using the {place}."


_DOING: dict[str, Callable[[Game, State, Move], tuple[State, str]]] = {
    "look": _look,
    "inventory": _inventory,
    "help": _help,
    "go": _go,
    "examine place": _examine_place,
    "examine thing": _examine_thing,
    "open": _open,
    "close": _close,
    "take": _take,
    "put": _put,
    "use": _use,
    "slice": _slice,
    "clean": _clean,
    "heat": _heat,
    "cool": _cool,
}


def do(game: Game, state: State, move: Move) -> tuple[State, str]:
    """Carry out a move of ``moves``: the state after it, and the answer."""
    return _DOING[move.verb](game, state, move)
