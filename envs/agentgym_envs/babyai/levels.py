"""Levels of BabyAI: making one from its name and a seed, and copying one that is under way."""

from __future__ import annotations

import copy
import os
from functools import cache
from importlib.util import find_spec
from typing import Any

from agentgym.errors import ConfigError, MissingExtra, did_you_mean

ENV = "agentgym/BabyAI-v0"

GROUPS: dict[str, tuple[str, ...]] = {
    "room": (
        "GoToObj",
        "GoToRedBallGrey",
        "GoToRedBall",
        "GoToLocal",
        "PutNextLocal",
        "PickupLoc",
    ),
    "maze": (
        "GoToObjMaze",
        "GoTo",
        "Pickup",
        "UnblockPickup",
        "Open",
        "Unlock",
        "PutNextS5N2",
        "Synth",
        "SynthLoc",
    ),
    "sequence": ("GoToSeq", "SynthSeq", "GoToImpUnlock", "BossLevel"),
}
"""The 19 levels of Chevalier-Boisvert et al. 2019 (arXiv:1810.08272), table 1, by difficulty: one
room; a maze of rooms; a maze with locked rooms or missions of several parts."""


def chosen(levels: str) -> tuple[str, ...]:
    """Names of levels from groups and names, joined by commas.

    Raises:
        ConfigError: A name has a form that no level has.
    """
    words = tuple(filter(None, map(str.strip, levels.split(","))))
    names = tuple(dict.fromkeys(name for word in words for name in GROUPS.get(word, (word,))))
    if not names or not all(name.isascii() and name.isalnum() for name in names):
        raise ConfigError(
            f"levels: got {levels!r}, expected groups ({', '.join(GROUPS)}) or names of BabyAI's "
            f"levels, such as GoToLocal, joined by commas"
        )
    return names


def require() -> None:
    """Check that the package is there.

    Raises:
        MissingExtra: It is not.
    """
    if not (find_spec("minigrid") and find_spec("pygame")):
        raise MissingExtra(f'{ENV} needs the levels of Minigrid: pip install "agentic-gym[babyai]"')


@cache
def registered() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name of a level -> the newest version's id and its keyword arguments."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import gymnasium
    import minigrid  # noqa: F401 - registers the levels
    from minigrid.envs.babyai.core import roomgrid_level

    # The package prints a line for each layout that it rejects.
    vars(roomgrid_level)["print"] = _silent
    found = {}
    for id_ in sorted(gymnasium.registry):
        if id_.startswith("BabyAI-"):
            name = id_.removeprefix("BabyAI-").rpartition("-v")[0]
            spec = gymnasium.registry[id_]
            found[name] = (str(spec.entry_point).partition(":")[2], dict(spec.kwargs))
    return found


def make(name: str, seed: int) -> Any:
    """A level at the start of an episode: ``minigrid``'s own object, without its image.

    Raises:
        ConfigError: There is no such level.
    """
    known = registered()
    if name not in known:
        raise ConfigError(f"{ENV} has no level {name!r}.{did_you_mean(name, known)}")
    import minigrid.envs.babyai as classes

    kind, kwargs = known[name]
    level = getattr(classes, kind)(**kwargs)
    level.gen_obs = _no_image
    level.reset(seed=seed)
    return level


def copied(level: Any) -> Any:
    """An independent level in the same state; walls and spaces never change and are shared."""
    shared = [each for each in level.grid.grid if each is not None and each.type == "wall"]
    shared += [level.observation_space, level.action_space, level.actions, level._np_random]
    return copy.deepcopy(level, {id(each): each for each in shared})


def _silent(*_: object) -> None:
    """Instead of ``print``."""


def _no_image() -> None:
    """Instead of the array that a step would encode, which takes nine tenths of its time."""
