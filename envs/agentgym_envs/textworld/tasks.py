"""Task ids: strings that fully define a game, and the panels made of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from agentgym.env.base import unknown_split, unknown_task
from agentgym.errors import ConfigError, did_you_mean

ENV = "agentgym/TextWorld-v0"

PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "cooking": {
        "easy": ("r1t1o1k1c1g1", "r2t2o1k1c1g1"),
        "medium": ("r1t1o1k1c1g1", "r1t1o1k1c1g6", "r2t2o1k1c1g1", "r2t2o1k1c1g6"),
        "hard": ("r3t3o1k1c1g9", "r3t3o1k1c1g12", "r3t3o1k1c1d1g9", "r3t3o1k1c1d1g12"),
    },
    "coin_collector": {
        "easy": ("l3", "l4", "l5", "l6"),
        "medium": ("l8", "l10", "l12", "l108"),
        "hard": ("l20", "l115", "l120", "l215"),
    },
    "treasure_hunter": {
        "easy": ("l4", "l6", "l8", "l10"),
        "medium": ("l12", "l15", "l17", "l20"),
        "hard": ("l22", "l25", "l27", "l30"),
    },
    "simple": {
        "easy": ("dense-detailed",),
        "medium": ("balanced-brief", "dense-brief"),
        "hard": ("sparse-none",),
    },
}
"""Family -> name of a difficulty -> the settings its tasks take turns with."""

FAMILIES = tuple(PRESETS)
SPLIT_SEEDS = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""First seed of each split; a split is at most the distance to the next one."""

_SEED = r"-s(?P<seed>0|[1-9][0-9]{0,8})"
_CODES = {
    "cooking": r"r(?P<recipe>[1-5])t(?P<take>[0-5])o(?P<open>[01])k(?P<cook>[01])"
    r"c(?P<cut>[01])(?P<drop>d1)?g(?P<go>1|6|9|12)",
    "coin_collector": r"l(?P<level>[1-9][0-9]{0,2})",
    "treasure_hunter": r"l(?P<level>[1-9][0-9]?)",
    "simple": r"(?P<rewards>dense|balanced|sparse)-(?P<goal>detailed|brief|none)",
}
_EXAMPLES = tuple(f"{family}-{presets['easy'][0]}-s0" for family, presets in PRESETS.items())


class Spec(NamedTuple):
    """A parsed task id."""

    family: str
    settings: dict[str, int | str]
    """The names and values TextWorld's own maker of this family takes."""
    seed: int


def parse(task: str) -> Spec:
    """Read a task id.

    Raises:
        UnknownTask: It is not one; the message shows one that is.

    Examples:
        >>> parse("coin_collector-l7-s5")
        Spec(family='coin_collector', settings={'level': 7}, seed=5)
    """
    family = task.partition("-")[0]
    found = re.fullmatch(f"{family}-{_CODES[family]}{_SEED}", task) if family in _CODES else None
    spec = _spec(family, found.groupdict()) if found else None
    if spec is None:
        raise unknown_task(ENV, task, _EXAMPLES)
    return spec


def _spec(family: str, found: dict[str, str | None]) -> Spec | None:
    """Settings within the ranges that TextWorld accepts, or None."""
    seed = int(found.pop("seed") or 0)
    if family == "simple":
        return Spec(family, {key: str(value) for key, value in found.items()}, seed)
    settings: dict[str, int | str] = {
        key: int((value or "0").lstrip("d")) for key, value in found.items()
    }
    level = int(settings.get("level", 0))
    if family == "treasure_hunter" and level > 30:
        return None
    # TextWorld's format holds 100 rooms: each hundred levels adds one set of side rooms.
    if family == "coin_collector" and ((level - 1) // 100 + 1) * ((level - 1) % 100 + 1) > 100:
        return None
    if family == "coin_collector" and level > 300:
        return None
    if family == "cooking" and int(settings["take"]) > int(settings["recipe"]):
        return None
    return Spec(family, settings, seed)


def mix(family: str, difficulty: str) -> tuple[str, ...]:
    """The settings that tasks take turns with, each as ``<family>-<code>``.

    Args:
        family: One of ``FAMILIES``, or ``mix`` for all of them in turn.
        difficulty: A name from ``PRESETS``, or codes joined by commas, such as
            ``r1t1o1k1c1g1,r2t2o1k1c1g6``.

    Raises:
        ConfigError: There is no such family, preset or code.
    """
    if family not in (*FAMILIES, "mix"):
        near = did_you_mean(family, FAMILIES)
        raise ConfigError(f"no family {family!r}.{near} Families: {', '.join(FAMILIES)}, mix")
    chosen = FAMILIES if family == "mix" else (family,)
    if all(difficulty in PRESETS[name] for name in chosen):
        lists = [[f"{name}-{code}" for code in PRESETS[name][difficulty]] for name in chosen]
        longest = max(map(len, lists))
        return tuple(codes[i % len(codes)] for i in range(longest) for codes in lists)
    codes = tuple(f"{family}-{code}" for code in difficulty.split(","))
    if family == "mix" or not all(_is_code(family, code) for code in codes):
        known = sorted(set.intersection(*(set(PRESETS[name]) for name in chosen)))
        raise ConfigError(
            f"family {family!r} has no difficulty {difficulty!r}."
            f"{did_you_mean(difficulty, known)} Named: {', '.join(known)}"
            + (f"; a code looks like {PRESETS[family]['easy'][0]!r}" if family != "mix" else "")
        )
    return codes


def _is_code(family: str, code: str) -> bool:
    found = re.fullmatch(f"{family}-{_CODES[family]}{_SEED}", f"{code}-s0")
    return found is not None and _spec(family, found.groupdict()) is not None


def panel_ids(codes: tuple[str, ...], split: str, count: int) -> tuple[str, ...]:
    """The tasks of a split: consecutive seeds, taking turns with the settings.

    Raises:
        ConfigError: There is no such split.
    """
    if split not in SPLIT_SEEDS:
        raise unknown_split(ENV, split, tuple(SPLIT_SEEDS))
    first = SPLIT_SEEDS[split]
    return tuple(f"{codes[i % len(codes)]}-s{first + i}" for i in range(count))
