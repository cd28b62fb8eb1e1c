"""Pages as lists of nodes, their four renderings, and what can be clicked on them.

``text`` and ``text_rich`` equal those of the released environment, which renders HTML and reads it
back with Beautiful Soup. Blanks of its templates and texts of blanks alone are therefore kept.
"""

from __future__ import annotations

import json
from enum import StrEnum
from html import escape
from typing import Literal, NamedTuple, get_args

from agentgym_envs.webshop.session import (
    ATTRIBUTES,
    BACK,
    BUY,
    NEXT,
    PREVIOUS,
    Place,
    Session,
    Shop,
)

Mode = Literal["text", "text_rich", "html", "url"]
MODES: tuple[Mode, ...] = get_args(Mode)
_BLANKS = " \n\t\f\r"
"""What Beautiful Soup collapses."""
HOST = "http://127.0.0.1:3000"
"""In the addresses of pages; no server runs there."""


class Kind(StrEnum):
    """The kind of a node."""

    TEXT = "text"
    HEADING = "heading"
    LABEL = "label"
    """The name of an option."""
    BUTTON = "button"
    PRODUCT = "product"
    OPTION = "option"


class Node(NamedTuple):
    """A piece of visible text, with its blanks."""

    kind: Kind
    text: str
    chosen: bool = False
    """The option is chosen, or the product was visited."""


def nodes(shop: Shop, session: Session, instruction: str) -> tuple[Node, ...]:
    """Every node of a page, in order.

    The page after a purchase differs from the original, which prints goal and score: an agent must
    not read its own score.
    """
    if session.place is Place.DONE:
        card = shop.catalogue.card(session.row)
        chosen = (f"{name}: {value}" for name, value in session.options)
        lines = ("Your order", card.asin, card.title, *chosen, f"Price: {card.price_tag}")
        return (
            Node(Kind.HEADING, "Thank you for shopping with us!"),
            *(Node(Kind.TEXT, line) for line in lines if line),
        )
    head = (Node(Kind.LABEL, "Instruction:"), Node(Kind.TEXT, instruction))
    if session.place is Place.INDEX:
        label = Node(Kind.LABEL, "Instruction: ")  # the template has a blank here
        return (Node(Kind.HEADING, "WebShop"), label, head[1], Node(Kind.BUTTON, "Search"))
    body = {Place.RESULTS: _results, Place.ITEM: _item, Place.SUB_PAGE: _sub_page}[session.place]
    return _as_parsed((*head, Node(Kind.BUTTON, BACK), *body(shop, session)))


def _as_parsed(page: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes that Beautiful Soup finds: those without text are dropped, blanks are collapsed.

    It reads a text of blanks as one blank, or as one line break, which the original skips.
    """
    blank = [node.text.strip(_BLANKS) == "" for node in page]
    return tuple(
        node._replace(text=" ") if is_blank else node
        for node, is_blank in zip(page, blank, strict=True)
        if not is_blank or (node.text and "\n" not in node.text)
    )


def _results(shop: Shop, session: Session) -> list[Node]:
    total = len(session.results)
    shown = [Node(Kind.TEXT, f"Page {session.number} (Total results: {total})")]
    if session.number > 1:
        shown.append(Node(Kind.BUTTON, PREVIOUS))
    shown.append(Node(Kind.BUTTON, NEXT))
    for row in shop.shown(session):
        asin, title, price_tag = shop.catalogue.card(row)
        shown += (
            Node(Kind.PRODUCT, asin, row in session.seen),
            Node(Kind.TEXT, title),
            Node(Kind.TEXT, price_tag),
        )
    return shown


def _item(shop: Shop, session: Session) -> list[Node]:
    product = shop.catalogue.product(session.row)
    chosen = dict(session.options)
    shown = [Node(Kind.BUTTON, PREVIOUS)]
    for name, values in product.options:
        shown.append(Node(Kind.LABEL, name))
        shown += [Node(Kind.OPTION, value, chosen.get(name) == value) for value in values]
    shown += [
        Node(Kind.HEADING, product.title),
        Node(Kind.TEXT, f"Price: {product.price_tag}"),
        Node(Kind.TEXT, "Rating: N.A."),
    ]
    return shown + [Node(Kind.BUTTON, name) for name in (*shop.sub_pages, BUY)]


def _sub_page(shop: Shop, session: Session) -> list[Node]:
    product = shop.catalogue.product(session.row)
    lines = {
        "Description": [product.description],
        "Features": _listed(product.bullets),
        "Reviews": [],
        ATTRIBUTES: [*_listed(product.attributes), product.category, product.query, product.path],
    }[session.sub]
    return [Node(Kind.BUTTON, PREVIOUS), *(Node(Kind.TEXT, line) for line in lines)]


def _listed(lines: tuple[str, ...]) -> list[str]:
    """Items of a list, before which the template has a blank."""
    return [f" {line}" for line in lines]


def clickables(page: tuple[Node, ...]) -> tuple[str, ...]:
    """The clickable texts: buttons in page order, then products, then option values."""
    kinds = (Kind.BUTTON, Kind.PRODUCT, Kind.OPTION)
    found = (node.text.lower() for kind in kinds for node in page if node.kind is kind)
    return tuple(dict.fromkeys(found))


def text(page: tuple[Node, ...]) -> str:
    """Every text, joined by separators."""
    return " [SEP] ".join([node.text.strip() for node in page])


def text_rich(page: tuple[Node, ...], address: str) -> str:
    """A line per text, clickable texts in brackets, the chosen options first.

    An option counts as chosen where the page's ``address`` contains it in quotes, as in the
    original: one with a quote or a letter beyond ASCII, which an address escapes, never does.
    """
    marked = [
        node._replace(chosen=f'"{node.text}"' in address) if node.kind is Kind.OPTION else node
        for node in page
    ]
    chosen = [node.text for node in marked if node.kind is Kind.OPTION and node.chosen]
    clicked = [f"You have clicked {value}." for value in reversed(chosen)]
    return "\n".join([*clicked, *map(_rich, marked)]) + "\n"


def _rich(node: Node) -> str:
    clicked = "clicked button" if node.chosen else "button"
    before = {Kind.BUTTON: "", Kind.OPTION: "  ", Kind.PRODUCT: "\n"}.get(node.kind)
    return node.text if before is None else f"{before}[{clicked}] {node.text} [{clicked}_]"


def html(page: tuple[Node, ...]) -> str:
    """The body of a web page; each button posts its action."""
    return "\n".join(["<form method='post'>", *map(_tag, page), "</form>"])


_TAGS = {Kind.TEXT: "p", Kind.HEADING: "h1", Kind.LABEL: "h4"}
_CLASSES = {Kind.BUTTON: "btn", Kind.PRODUCT: "product-link", Kind.OPTION: "option"}


def _tag(node: Node) -> str:
    shown = escape(node.text)
    if node.kind in _TAGS:
        return f"<{_TAGS[node.kind]}>{shown}</{_TAGS[node.kind]}>"
    if node == (Kind.BUTTON, "Search", False):
        return (
            "<input id='search_input' name='query' placeholder='Search...' autofocus>"
            f"<button class='btn'>{shown}</button>"
        )
    kind = _CLASSES[node.kind] + (" chosen" if node.chosen else "")
    action = escape(f"click[{node.text.lower()}]", quote=True)
    return f'<button class="{kind}" name="action" value="{action}">{shown}</button>'


def url(shop: Shop, session: Session, name: str) -> str:
    """The address of a page; ``name`` is that of the session."""
    words = session.query.replace(" ", "+")
    options = dict(session.options)
    if session.place is Place.INDEX:
        return f"{HOST}/{name}"
    if session.place is Place.RESULTS:
        return f"{HOST}/{session.place}/{name}/{words}/{session.number}"
    asin = shop.catalogue.card(session.row).asin
    if session.place is Place.DONE:
        return f"{HOST}/{session.place}/{name}/{asin}/{options}"
    item = f"{HOST}/{session.place}/{name}/{asin}/{words}/{session.number}"
    if session.place is Place.ITEM:
        return f"{item}/{json.dumps(options)}"
    return f"{item}/{session.sub}/{options}"


def render(shop: Shop, session: Session, instruction: str, mode: Mode, name: str) -> str:
    """A page in one of the modes."""
    if mode == "url":
        return url(shop, session, name)
    page = nodes(shop, session, instruction)
    if mode == "text_rich":
        return text_rich(page, url(shop, session, name))
    return html(page) if mode == "html" else text(page)
