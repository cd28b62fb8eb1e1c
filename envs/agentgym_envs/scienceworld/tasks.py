"""Task ids (experiment, simplifications, variation) and the panels made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from agentgym.env.base import unknown_split, unknown_task
from agentgym.errors import ConfigError, did_you_mean

ENV = "agentgym/ScienceWorld-v0"


class Sizes(NamedTuple):
    """Number of variations of a task in the official splits, which are consecutive ranges."""

    train: int
    dev: int
    test: int


SIZES = {
    "boil": Sizes(14, 7, 9),
    "melt": Sizes(14, 7, 9),
    "freeze": Sizes(14, 7, 9),
    "change-the-state-of-matter-of": Sizes(14, 7, 9),
    "use-thermometer": Sizes(270, 135, 135),
    "measure-melting-point-known-substance": Sizes(218, 109, 109),
    "measure-melting-point-unknown-substance": Sizes(150, 75, 75),
    "power-component": Sizes(10, 5, 5),
    "power-component-renewable-vs-nonrenewable-energy": Sizes(10, 5, 5),
    "test-conductivity": Sizes(450, 225, 225),
    "test-conductivity-of-unknown-substances": Sizes(300, 150, 150),
    "find-living-thing": Sizes(150, 75, 75),
    "find-non-living-thing": Sizes(150, 75, 75),
    "find-plant": Sizes(150, 75, 75),
    "find-animal": Sizes(150, 75, 75),
    "grow-plant": Sizes(62, 31, 33),
    "grow-fruit": Sizes(62, 31, 33),
    "chemistry-mix": Sizes(16, 8, 8),
    "chemistry-mix-paint-secondary-color": Sizes(18, 9, 9),
    "chemistry-mix-paint-tertiary-color": Sizes(18, 9, 9),
    "lifespan-longest-lived": Sizes(62, 31, 32),
    "lifespan-shortest-lived": Sizes(62, 31, 32),
    "lifespan-longest-lived-then-shortest-lived": Sizes(62, 31, 32),
    "identify-life-stages-1": Sizes(6, 3, 5),
    "identify-life-stages-2": Sizes(4, 2, 4),
    "inclined-plane-determine-angle": Sizes(84, 42, 42),
    "inclined-plane-friction-named-surfaces": Sizes(692, 346, 348),
    "inclined-plane-friction-unnamed-surfaces": Sizes(80, 40, 42),
    "mendelian-genetics-known-plant": Sizes(60, 30, 30),
    "mendelian-genetics-unknown-plant": Sizes(240, 120, 120),
}
"""The 30 tasks in the order of the paper: 7,207 variations."""

SIMPLIFICATIONS = (
    "teleportAction",
    "selfWateringFlowerPots",
    "openContainers",
    "openDoors",
    "noElectricalAction",
)
"""What the simulator can make easier; ``easy`` is all of it and ``full`` nothing."""

_UNSEEN = frozenset(
    {
        "change-the-state-of-matter-of",
        "chemistry-mix-paint-tertiary-color",
        "find-plant",
        "grow-plant",
        "identify-life-stages-2",
        "inclined-plane-friction-unnamed-surfaces",
        "lifespan-longest-lived-then-shortest-lived",
        "measure-melting-point-unknown-substance",
        "mendelian-genetics-unknown-plant",
        "test-conductivity-of-unknown-substances",
    }
)
_EPO = frozenset(SIZES) - {"use-thermometer"}
_ELECTRICAL = re.compile("power-component|conductivity")
_ID = re.compile(r"(?P<name>[a-z0-9-]+)-(?P<mode>[A-Za-z+]+)-v(?P<variation>0|[1-9][0-9]{0,3})")

PARTITIONS: Mapping[str, Mapping[str, tuple[frozenset[str], str]]] = {
    "official": {
        "train": (frozenset(SIZES), "train"),
        "valid": (frozenset(SIZES), "dev"),
        "test": (frozenset(SIZES), "test"),
    },
    # EPO's files list a training and a test set; `valid` is the rest of these tasks.
    "epo-l0": {"train": (_EPO, "train"), "valid": (_EPO, "test"), "test": (_EPO, "dev")},
    "epo-l1": {"train": (_EPO, "train"), "valid": (_EPO, "dev"), "test": (_EPO, "test")},
    "epo-l2": {
        "train": (_EPO - _UNSEEN, "train"),
        "valid": (_EPO - _UNSEEN, "dev"),
        "test": (_UNSEEN, "test"),
    },
}
"""Partition -> split -> which tasks, and which of their official variations.

``epo-l0`` and ``epo-l1`` are 29 tasks tested on other variations, ``epo-l2`` trains on 19 tasks
and tests on the 10 others. Source: the index files of EPO (arXiv 2509.22576), which list exactly
these variations in random order.
"""


class Spec(NamedTuple):
    """A parsed task id."""

    name: str
    simplifications: str
    """As the simulator takes them: joined by commas, or ``easy``; empty for none."""
    variation: int


def parse(task: str) -> Spec:
    """Read a task id.

    Raises:
        UnknownTask: It is malformed or unknown; the message shows a valid one.

    Examples:
        >>> parse("boil-easy-v3")
        Spec(name='boil', simplifications='easy', variation=3)
        >>> parse("melt-openDoors+teleportAction-v0").simplifications
        'openDoors,teleportAction'
    """
    found = _ID.fullmatch(task)
    name, mode = (found["name"], found["mode"]) if found else ("", "")
    variation = int(found["variation"]) if found else 0
    if name not in SIZES or variation >= sum(SIZES[name]) or _refusal(mode, [name]):
        examples = [f"{known}-{mode or 'easy'}-v{variation}" for known in SIZES]
        raise unknown_task(ENV, task, examples if name not in SIZES else [f"{name}-easy-v0"])
    return Spec(name, {"full": ""}.get(mode, mode.replace("+", ",")), variation)


def check_mode(mode: str, names: Sequence[str]) -> str:
    """Check a mode: ``easy``, ``full``, or names from ``SIMPLIFICATIONS`` joined by ``+``.

    Raises:
        ConfigError: It is unknown, or one of the tasks cannot be completed in it.
    """
    if problem := _refusal(mode, names):
        raise ConfigError(problem)
    return mode


def select(words: str) -> tuple[str, ...]:
    """The tasks named by ``all`` or by names joined by commas, in the order of the paper.

    Raises:
        ConfigError: One of them is unknown.
    """
    wanted = [word.strip() for word in words.split(",")]
    for word in wanted if words != "all" else ():
        if word not in SIZES:
            raise ConfigError(
                f"ScienceWorld has no task named {word!r}.{did_you_mean(word, SIZES)} "
                f"Tasks: all, {', '.join(SIZES)}"
            )
    return tuple(name for name in SIZES if words == "all" or name in wanted)


def panel_ids(partition: str, split: str, names: Sequence[str], mode: str) -> tuple[str, ...]:
    """The task ids of a split: one variation of each task in turn, until none is left.

    Raises:
        ConfigError: The partition or split is unknown.
    """
    if partition not in PARTITIONS:
        raise ConfigError(
            f"partition: got {partition!r}, expected one of {', '.join(PARTITIONS)}."
            f"{did_you_mean(partition, PARTITIONS)}"
        )
    if split not in PARTITIONS[partition]:
        raise unknown_split(ENV, split, tuple(PARTITIONS[partition]))
    among, part = PARTITIONS[partition][split]
    columns = [
        [f"{name}-{mode}-v{variation}" for variation in _variations(SIZES[name], part)]
        for name in names
        if name in among
    ]
    return tuple(id_ for row in zip_longest(*columns) for id_ in row if id_ is not None)


def _variations(sizes: Sizes, part: str) -> range:
    first = {"train": 0, "dev": sizes.train, "test": sizes.train + sizes.dev}[part]
    return range(first, first + getattr(sizes, part))


def _refusal(mode: str, names: Sequence[str]) -> str:
    """Why a mode cannot be used for the tasks; empty when it can."""
    if mode in ("easy", "full"):
        return ""
    parts = mode.split("+")
    for part in parts:
        if part not in SIMPLIFICATIONS:
            known = ("easy", "full", *SIMPLIFICATIONS)
            return (
                f"simplify: got {part!r}, expected easy, full, or some of "
                f"{', '.join(SIMPLIFICATIONS)} joined by +.{did_you_mean(part, known)}"
            )
    if parts != sorted(set(parts)):
        return f"simplify: got {mode!r}, expected {'+'.join(sorted(set(parts)))!r}"
    electrical = [name for name in names if _ELECTRICAL.search(name)]
    if "noElectricalAction" in parts and electrical:
        return (
            f"simplify: {electrical[0]!r} cannot be done with noElectricalAction; leave it out, "
            f"or choose other tasks"
        )
    return ""
