"""The goals of a product, their price bounds, and their splits."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from agentgym.env.base import unknown_split
from agentgym_envs.webshop.products import Product, share

ENV = "agentgym/WebShop-v0"
GoalKind = Literal["synthetic", "human"]

NO_BOUND = 1_000_000.0
"""Dollars; the bound of a product that is too expensive for a named one."""
_STEPS = tuple(10.0 * step for step in range(1, 100))
_SHUFFLE_SEED = 233
"""The seed of the original, so that goals have the same numbers."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The product to buy, and the instruction that describes it."""

    instruction: str
    """In natural language, with options and price."""
    asin: str
    """The product the goal was made from."""
    title: str
    query: str
    path: str
    category: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str | None, str], ...]
    """(name, value); the name is None in human goals."""
    bound: float
    """Highest price, in dollars."""


def count(product: Product, kind: GoalKind) -> int:
    """Number of goals of a product: combinations of its options, or human instructions."""
    if kind == "human":
        return sum(bool(wish.attributes) for wish in product.wishes)
    if not product.instruction or not product.instruction_attributes:
        return 0
    return math.prod(len(values) for _, values in product.options)


def goal(product: Product, kind: GoalKind, choice: int) -> Goal:
    """One of the goals of a product, ``choice`` counting from 0."""
    options: tuple[tuple[str | None, str], ...]
    if kind == "human":
        wish = [wish for wish in product.wishes if wish.attributes][choice]
        words, attributes = wish.instruction.strip("."), wish.attributes
        options = tuple((None, value) for value in wish.options)
        bound = _bound(product, wish.instruction)
    else:
        options = _combination(product, choice)
        options_text = ", and ".join(f"{name}: {value}" for name, value in options)
        words = product.instruction + (f" with {options_text}" if options_text else "")
        attributes = product.instruction_attributes
        bound = _bound(product, "")
    price = f", and price lower than {bound:.2f} dollars" if bound < NO_BOUND else ""
    return Goal(
        words + price,
        product.asin,
        product.title,
        product.query,
        product.path,
        product.category,
        attributes,
        options,
        bound,
    )


def _combination(product: Product, choice: int) -> tuple[tuple[str, str], ...]:
    """The ``choice``-th combination, options by name, the last one changing fastest."""
    chosen = []
    for name, values in sorted(product.options, reverse=True):
        choice, at = divmod(choice, len(values))
        chosen.append((name, values[at]))
    return tuple(reversed(chosen))


def _bound(product: Product, salt: str) -> float:
    """The larger of two of the next four round prices.

    Differs from the original, which draws them before it seeds, so that the bound of a goal changes
    from process to process: here it depends on the product and the instruction alone.
    """
    nearest = [step for step in _STEPS if step > product.price][:4]
    pairs = list(itertools.combinations(nearest, 2))
    if not pairs:
        return NO_BOUND
    return pairs[int(share("bound", product.asin, salt) * len(pairs))][1]


def shuffled(total: int) -> npt.NDArray[np.int64]:
    """The original's order: position -> number of the goal before shuffling."""
    order = list(range(total))
    random.Random(_SHUFFLE_SEED).shuffle(order)
    return np.array(order, np.int64)


class Names(Sequence[str]):
    """The task ids of a range of goals, created lazily: a catalogue may have millions."""

    def __init__(self, prefix: str, numbers: range) -> None:
        self.prefix, self.numbers = prefix, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Names: ...
    def __getitem__(self, at: int | slice) -> str | Names:
        if isinstance(at, slice):
            return Names(self.prefix, self.numbers[at])
        return f"{self.prefix}{self.numbers[at]}"


def split_range(name: str, total: int) -> range:
    """Positions of a split in the shuffled goals.

    ``test`` is 0-499, ``valid`` 500-1499 and ``train`` the rest, as in the original; a catalogue
    of fewer than 4,000 goals gives at most a quarter to each of the first two. The verl-agent
    family draws the line elsewhere: ``verl_valid`` 0-499, ``verl_train`` from 500.

    Raises:
        ConfigError: The split is unknown.
    """
    test, valid = min(500, total // 4), min(1000, total // 4)
    known = {
        "train": range(test + valid, total),
        "valid": range(test, test + valid),
        "test": range(test),
        "verl_train": range(test, total),
        "verl_valid": range(test),
    }
    if name not in known:
        raise unknown_split(ENV, name, tuple(known))
    return known[name]
