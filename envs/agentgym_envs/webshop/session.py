"""A visit to the shop: immutable states and their transitions."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from agentgym_envs.webshop.catalogue import Catalogue
from agentgym_envs.webshop.products import Product

PER_PAGE = 10
"""Products on a page of results."""
BACK, PREVIOUS, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews")
ATTRIBUTES = "Attributes"
"""A further sub-page, shown with ``show_attributes``."""


class Place(StrEnum):
    """The types of page, named as in addresses."""

    INDEX = "index"
    RESULTS = "search_results"
    ITEM = "item_page"
    SUB_PAGE = "item_sub_page"
    DONE = "done"


class Session(NamedTuple):
    """The state of a visit."""

    place: Place = Place.INDEX
    query: str = ""
    results: tuple[int, ...] = ()
    """Rows found by the query."""
    number: int = 1
    """Page of results."""
    row: int = -1
    """Of the product on the page."""
    sub: str = ""
    """Name of the sub-page."""
    options: tuple[tuple[str, str], ...] = ()
    """Chosen (name, value), first chosen first."""
    seen: frozenset[int] = frozenset()
    """Products visited since the search page."""


class Action(NamedTuple):
    """``name[argument]``."""

    name: str
    argument: str
    """In lower case; empty when there are no brackets, or nothing between them."""


def parse(text: str) -> Action:
    """Parse an action as the original does: the longest name, then the longest argument.

    Examples:
        >>> parse("search[Red Shoes]"), parse("search[a]b]").argument, parse("search[]")
        (Action(name='search', argument='red shoes'), 'a]b', Action(name='search[]', argument=''))
    """
    line = text.strip().partition("\n")[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 1))
    if start < 1:
        return Action(line, "")
    return Action(line[:start], line[start + 1 : end].lower())


class Shop(NamedTuple):
    """The part that is the same for every visit."""

    catalogue: Catalogue
    show_attributes: bool = False
    search_anywhere: bool = False
    """Let ``search[...]`` work on pages without a search bar, as the original simulator does."""
    per_page: int = PER_PAGE
    """Products on a page of results."""

    @property
    def sub_pages(self) -> tuple[str, ...]:
        """Names of the sub-pages of an item."""
        return (*SUB_PAGES, ATTRIBUTES) if self.show_attributes else SUB_PAGES

    def shown(self, session: Session) -> tuple[int, ...]:
        """Rows on the session's page of results."""
        return session.results[(session.number - 1) * self.per_page :][: self.per_page]


def act(shop: Shop, session: Session, action: Action) -> Session | None:
    """The session after an action, or None where the action is invalid."""
    if session.place is Place.DONE or not action.argument:
        return None
    if action.name == "search":
        if session.place is not Place.INDEX and not shop.search_anywhere:
            return None
        return _results(shop, session, action.argument)
    if action.name != "click" or session.place is Place.INDEX:
        return None
    if action.argument == BACK.lower():
        return Session()
    return _CLICKS[session.place](shop, session, action.argument)


def _results(shop: Shop, session: Session, query: str) -> Session:
    found = shop.catalogue.search(query)
    return Session(Place.RESULTS, query, found, seen=session.seen)


def _click_result(shop: Shop, session: Session, target: str) -> Session | None:
    if target == NEXT.lower():
        return session._replace(number=session.number + 1)
    if target == PREVIOUS.lower():
        return session._replace(number=session.number - 1) if session.number > 1 else None
    for row in shop.shown(session):
        if shop.catalogue.card(row).asin.lower() == target:
            return session._replace(place=Place.ITEM, row=row, seen=session.seen | {row})
    return None


def _click_item(shop: Shop, session: Session, target: str) -> Session | None:
    if target == BUY.lower():
        return session._replace(place=Place.DONE)
    if target == PREVIOUS.lower():
        return session._replace(place=Place.RESULTS, row=-1, options=())
    for name in shop.sub_pages:
        if target == name.lower():
            return session._replace(place=Place.SUB_PAGE, sub=name)
    option = option_of(shop.catalogue.product(session.row), target)
    if option is None:
        return None
    return session._replace(options=_choose(session.options, option, target))


def _click_sub_page(shop: Shop, session: Session, target: str) -> Session | None:
    if target == PREVIOUS.lower():
        return session._replace(place=Place.ITEM, sub="")
    return None


_CLICKS = {
    Place.RESULTS: _click_result,
    Place.ITEM: _click_item,
    Place.SUB_PAGE: _click_sub_page,
}


def option_of(product: Product, value: str) -> str | None:
    """The option that a value belongs to; the last one on the page where several offer it."""
    return next((name for name, values in reversed(product.options) if value in values), None)


def _choose(
    options: tuple[tuple[str, str], ...], name: str, value: str
) -> tuple[tuple[str, str], ...]:
    """Set an option; a changed value keeps its position, as in the original's dictionary."""
    return tuple({**dict(options), name: value}.items())
