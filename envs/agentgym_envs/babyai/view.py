"""What the agent sees, in words: the 7 x 7 cells before it, hidden by walls and closed doors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SIZE = 7
"""Width and depth of the view in cells."""
HALF = SIZE // 2
DIRECTIONS = ("east", "south", "west", "north")
_VECTORS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class Seen(NamedTuple):
    """One thing in view."""

    thing: Any
    """An object of ``minigrid``."""
    ahead: int
    """Steps ahead, 0 to 6."""
    right: int
    """Steps to the right, negative to the left."""


def describe(level: Any) -> str:
    """The view in two or three sentences."""
    things, walls = [], []
    for thing, ahead, right in seen(level):
        if thing.type != "wall":
            things.append(f"{named(thing)} {_where(ahead, right)}")
        elif not (ahead and right):
            walls.append((abs(right) + ahead, _where(ahead, right)))
    nearest = {place.split(" ", 2)[2]: place for _, place in sorted(walls, reverse=True)}
    lines = [f"You face {DIRECTIONS[level.agent_dir]}."]
    lines += [f"You see {', '.join(things)}."] if things else []
    lines += [f"Walls: {', '.join(nearest[way] for way in sorted(nearest))}."] if nearest else []
    lines += [f"You carry {named(level.carrying)}."] if level.carrying else []
    return " ".join(lines)


def named(thing: Any) -> str:
    """An object with its article."""
    if thing.type != "door":
        return f"a {thing.color} {thing.type}"
    if thing.is_open:
        return f"an open {thing.color} door"
    return f"a {'locked' if thing.is_locked else 'closed'} {thing.color} door"


def seen(level: Any) -> Iterator[Seen]:
    """The things in view, near ones first, from left to right.

    Light spreads as in ``minigrid``'s ``Grid.process_vis``: row by row away from the agent, to
    both sides, and no further than a wall or a closed door.
    """
    cells = _cells(level)
    lit = [[False] * SIZE for _ in range(SIZE)]
    lit[0][HALF] = True
    for ahead in range(SIZE):
        row, beyond = lit[ahead], lit[ahead + 1] if ahead + 1 < SIZE else [False] * SIZE
        here = cells[ahead]
        for way, places in ((1, range(SIZE - 1)), (-1, range(SIZE - 1, 0, -1))):
            for place in places:
                thing = here[place]
                if row[place] and (thing is None or thing.see_behind()):
                    row[place + way] = beyond[place + way] = beyond[place] = True
    for ahead in range(SIZE):
        for place in range(SIZE):
            thing = cells[ahead][place]
            if thing is not None and lit[ahead][place] and (ahead or place != HALF):
                yield Seen(thing, ahead, place - HALF)


def _cells(level: Any) -> list[list[Any]]:
    """What is in each cell of the view, by steps ahead and from left to right."""
    grid, width, height = level.grid.grid, level.width, level.height
    (x, y), (dx, dy) = level.agent_pos, _VECTORS[level.agent_dir]
    found = []
    for ahead in range(SIZE):
        row = []
        for right in range(-HALF, HALF + 1):
            i, j = int(x) + ahead * dx - right * dy, int(y) + ahead * dy + right * dx
            row.append(grid[j * width + i] if 0 <= i < width and 0 <= j < height else _OUTSIDE)
        found.append(row)
    return found


class _Outside:
    """Beyond the edge of the grid, which looks like a wall."""

    type = "wall"

    def see_behind(self) -> bool:
        return False


_OUTSIDE = _Outside()


def _where(ahead: int, right: int) -> str:
    """Such as ``2 steps ahead and 1 step left``."""
    parts = [_steps(ahead, "ahead")] if ahead else []
    parts += [_steps(abs(right), "right" if right > 0 else "left")] if right else []
    return " and ".join(parts)


def _steps(count: int, way: str) -> str:
    return f"{count} step{'' if count == 1 else 's'} {way}"
