"""How far a goal is reached, and whether it is."""

from __future__ import annotations

from agentgym_envs.alfworld.game import Game, State
from agentgym_envs.alfworld.problem import TREATMENTS


def treated(game: Game, state: State) -> frozenset[int]:
    """Things that were made as the goal wants them: clean, hot or cool; none if it wants none."""
    able, done = TREATMENTS.get(game.goal.task_type, ("", ""))
    having = {"isclean": state.clean, "ishot": state.hot, "iscool": state.cool}
    return frozenset(o for o in having.get(done, ()) if able in game.things[o].abilities)


def progress(game: Game, state: State) -> tuple[int, int]:
    """How many conditions of the goal hold, and of how many.

    As ALFRED counts them (Shridhar et al. 2020, arXiv:1912.01734, section 5): an object that is in
    its place, has been treated, or is both; the lamp that is on, the object in hand; the objects
    of a pair that are in one place.
    """
    kind = game.goal.task_type
    if kind == "look_at_obj_in_light":
        return (state.held in game.wanted) + any(_shines(game, state, o) for o in game.targets), 2
    groups = [game.wanted.intersection(state.contents[r]) for r in game.targets]
    if kind == "pick_two_obj_and_place":
        return min(2, max(map(len, groups), default=0)), 2
    inside = frozenset().union(*groups)
    if kind == "pick_and_place_simple":
        return bool(inside), 1
    ready = game.wanted & treated(game, state)
    return bool(inside) + bool(ready) + bool(inside & ready), 3


def _shines(game: Game, state: State, lamp: int) -> bool:
    """A lamp is on, here."""
    if game.goal.lamp_here:
        return lamp in state.toggled and (lamp, state.location) in state.near
    here = game.at[state.location]
    return lamp in state.toggled and any(lamp in state.contents[r] for r in here)
