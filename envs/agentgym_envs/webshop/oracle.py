"""The oracle: actions that buy the product of a goal from any page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentgym_envs.webshop.goals import Goal
from agentgym_envs.webshop.products import Product
from agentgym_envs.webshop.session import (
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    Place,
    Session,
    Shop,
    option_of,
)

Wins = Callable[[Product, dict[str, str]], bool]
"""Whether buying a product with these options has reward 1."""


def plan(
    shop: Shop, session: Session, goal: Goal, wins: Wins, *, searching: bool = False
) -> tuple[str, ...] | None:
    """Actions that end in reward 1, or None where the goal's product cannot be found or won.

    With ``searching`` it searches for words of the instruction, and for the title of the product
    only where these do not find it; otherwise for the title, which an agent cannot know. Some goals
    of real catalogues cannot be won: where two options share a value, a click always selects the
    second.
    """
    row = shop.catalogue.row(goal.asin)
    if row is None or session.place is Place.DONE:
        return None
    product = shop.catalogue.product(row)
    chosen = dict(session.options) if session.row == row else {}
    clicks = _clicks(product, goal, chosen)
    if not wins(product, chosen):
        return None
    queries = (wish(goal.instruction),) if searching else ()
    way = _way(shop, session, row, queries)
    return None if way is None else (*way, *(f"click[{c}]" for c in (*clicks, BUY.lower())))


def _clicks(product: Product, goal: Goal, chosen: dict[str, str]) -> list[str]:
    """Values still to be clicked; ``chosen`` is updated accordingly."""
    clicks = []
    for _, value in goal.options:
        name = option_of(product, value)
        if name is not None and chosen.get(name) != value:
            chosen[name] = value
            clicks.append(value)
    return clicks


def wish(instruction: str) -> str:
    """The wanted thing of an instruction, without options and price.

    Examples:
        >>> wish("Find me solid wood sofas with color: olive, and price lower than 900.00 dollars")
        'solid wood sofas'
    """
    wanted = instruction.partition(", and price lower than ")[0].partition(" with ")[0]
    return wanted.removeprefix("Find me ")


def _way(shop: Shop, session: Session, row: int, queries: Sequence[str]) -> list[str] | None:
    """Actions that lead to the page of a product; ``queries`` are tried before its title."""
    if session.row == row:
        return [f"click[{PREVIOUS.lower()}]"] if session.place is Place.SUB_PAGE else []
    asin = shop.catalogue.card(row).asin.lower()
    if session.place is Place.RESULTS and row in shop.shown(session):
        return [f"click[{asin}]"]
    start = [] if session.place is Place.INDEX else [f"click[{BACK.lower()}]"]
    product = shop.catalogue.product(row)
    for query in (*queries, product.title, product.document):
        words = " ".join(query.lower().replace("[", " ").replace("]", " ").split())
        found = shop.catalogue.search(words)
        if row in found:
            turns = found.index(row) // shop.per_page
            return [
                *start,
                f"search[{words}]",
                *[f"click[{NEXT.lower()}]"] * turns,
                f"click[{asin}]",
            ]
    return None
