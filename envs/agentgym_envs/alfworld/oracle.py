"""How to win: one command at a time, from what the player has seen or from everything.

The searching player knows the receptacles of the room and the contents of those it was shown. It
looks where the thing is most probable for the least effort, and handles what it found.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentgym_envs.alfworld.engine import accessible, do, moves
from agentgym_envs.alfworld.game import NOTHING, Game, State
from agentgym_envs.alfworld.generate import WEIGHTS
from agentgym_envs.alfworld.goals import progress, treated
from agentgym_envs.alfworld.tasks import TOOLS

LIKELY = {kind.lower(): weight for kind, weight in WEIGHTS.items()}
"""How likely a thing lies in a receptacle of a kind, if it fits there; 1 for other kinds."""
_LONGEST = 400
"""Commands after which a plan is given up; twice what the largest room could need."""


def winning_commands(game: Game, state: State, *, searching: bool) -> tuple[str, ...] | None:
    """Commands that win from here; None when the environment offers no way this player knows.

    Args:
        game: The game.
        state: Where to begin; it may be anywhere in an episode that is not won.
        searching: Use only what the player has seen, not what is true.
    """
    plan: list[str] = []
    while len(plan) < _LONGEST:
        done, wanted = progress(game, state)
        if done == wanted:
            return tuple(plan)
        command = next_command(game, state, searching=searching)
        move = moves(game, state).get(command or "")
        if command is None or move is None:
            return None
        plan.append(command)
        state, _ = do(game, state, move)
    return None


def next_command(game: Game, state: State, *, searching: bool) -> str | None:
    """What such a player does now; None when it is at its wits' end."""
    shown = state.seen if searching else frozenset(range(len(game.places)))
    return _Player(game, state, shown).command()


class _Player:
    """One decision."""

    def __init__(self, game: Game, state: State, shown: frozenset[int]) -> None:
        self.game = game
        self.state = state
        self.shown = shown

    def command(self) -> str | None:
        """Bring the right thing, in the right condition, to the right place."""
        state = self.state
        if state.held == NOTHING:
            return self._fetch()
        if self.game.things[state.held].kind != self.game.goal.thing:
            return self._put(self._spots())
        if self.game.goal.task_type == "look_at_obj_in_light":
            return self._light()
        if self.game.goal.task_type in TOOLS and state.held not in treated(self.game, state):
            return self._treat()
        return self._put(self._targets())

    def _fetch(self) -> str | None:
        """Take a thing that the goal needs, or look for one."""
        place = self._filling()
        ready = treated(self.game, self.state)
        ability = TOOLS.get(self.game.goal.task_type, ("pickupable", ""))[0]
        known = [
            (o not in ready, self._steps(r), o, r)
            for r, o in self._known(self.game.goal.thing)
            if r != place and {"pickupable", ability} <= self.game.things[o].abilities
        ]
        if not known:
            return self._search(self.game.goal.thing)
        _, _, o, r = min(known)
        take = f"take {self.game.things[o].name} from {self.game.places[r].name}"
        return self._reach(r) or take

    def _filling(self) -> int:
        """The place where one of a pair is already."""
        if self.game.goal.task_type != "pick_two_obj_and_place":
            return NOTHING
        return next(iter(self._targets()), NOTHING)

    def _targets(self) -> list[int]:
        """Where the goal wants the thing, best first."""
        goal, state, game = self.game.goal, self.state, self.game
        having = dict.fromkeys(game.targets, 0)
        for r, _ in self._known(goal.thing):
            if r in having:
                having[r] += 1
        if goal.task_type != "pick_two_obj_and_place":
            having = dict.fromkeys(game.targets, 0)
        return sorted(
            (r for r in having if game.places[r].location != NOTHING and self._takes(r)),
            key=lambda r: (-having[r], self._steps(r) if state.held != NOTHING else 0, r),
        )

    def _takes(self, r: int) -> bool:
        return self.game.goal.thing in self.game.places[r].holds

    def _spots(self) -> list[int]:
        """Where the thing in hand can be put out of the way, nearest first."""
        kind = self.game.things[self.state.held].kind
        fit = [
            r
            for r, place in enumerate(self.game.places)
            if kind in place.holds and place.location != NOTHING
        ]
        return sorted(fit, key=lambda r: (self._steps(r), r))

    def _put(self, places: list[int]) -> str | None:
        if not places:
            return None
        names = self.game.things[self.state.held].name, self.game.places[places[0]].name
        return self._reach(places[0]) or self.game.wording.put.format(o=names[0], r=names[1])

    def _treat(self) -> str | None:
        ability, tool = TOOLS[self.game.goal.task_type]
        tools = [
            r
            for r, place in enumerate(self.game.places)
            if place.kind == tool.lower() and place.location != NOTHING
        ]
        thing = self.game.things[self.state.held]
        if not tools:
            return None
        if ability not in thing.abilities:
            return self._put(self._spots())
        r = min(tools, key=lambda r: (self._steps(r), r))
        verb = {"cleanable": "clean", "heatable": "heat", "coolable": "cool"}[ability]
        return self._go(r) or f"{verb} {thing.name} with {self.game.places[r].name}"

    def _light(self) -> str | None:
        """Stand at a lamp that is on, with the thing in hand."""
        lamp = self.game.goal.target
        known = [
            (o not in self.state.toggled, self._steps(r), o, r)
            for r, o in self._known(lamp)
            if "toggleable" in self.game.things[o].abilities
        ]
        if not known:
            return self._search(lamp)
        _, _, o, r = min(known)
        return self._go(r) or f"use {self.game.things[o].name}"

    # ---- knowing and looking -----------------------------------------------------------------

    def _known(self, kind: str) -> Iterator[tuple[int, int]]:
        """Places and the things of a kind that the player knows in them."""
        for r in sorted(self.shown):
            for o in self.state.contents[r]:
                if self.game.things[o].kind == kind and self.game.places[r].location != NOTHING:
                    yield r, o

    def _search(self, kind: str) -> str | None:
        """Look into the place that promises most for its effort."""
        hidden = [
            r
            for r, place in enumerate(self.game.places)
            if r not in self.shown and place.location != NOTHING
        ]
        if not hidden:
            return None
        r = max(hidden, key=lambda r: (self._promise(kind, r), -r))
        return self._reach(r) or f"examine {self.game.places[r].name}"

    def _promise(self, kind: str, r: int) -> float:
        place = self.game.places[r]
        anywhere = not any(kind in other.holds for other in self.game.places)
        fits = kind in place.holds or (anywhere and not place.openable)
        return LIKELY.get(place.kind, 1.0) * (1.0 if fits else 0.01) / max(1, self._steps(r))

    def _steps(self, r: int) -> int:
        """Commands until the player can reach into a place."""
        away = self.game.places[r].location != self.state.location
        return away + (not accessible(self.game, self.state, r))

    def _go(self, r: int) -> str | None:
        away = self.game.places[r].location != self.state.location
        return f"go to {self.game.places[r].name}" if away else None

    def _reach(self, r: int) -> str | None:
        """The next command on the way into a place; None when it is at hand."""
        closed = not accessible(self.game, self.state, r)
        return self._go(r) or (f"open {self.game.places[r].name}" if closed else None)
