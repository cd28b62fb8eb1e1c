"""A product of the shop: the official record, cleaned, as a frozen dataclass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

DEFAULT_PRICE = 100.0
"""Dollars, where a record has no price."""
PLACEHOLDER = ("DUMMY_ATTR",)
"""Attributes of a product without an entry in the file of attributes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One person's instruction for a product."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values to choose, without the names of their options."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product."""

    asin: str
    """Its number: 10 letters and digits."""
    title: str
    description: str
    bullets: tuple[str, ...]
    price_tag: str
    """As shown: ``$19.99`` or ``$19.99 to $27.99``."""
    prices: tuple[float, ...]
    """One price, or the ends of a range; dollars."""
    options: tuple[tuple[str, tuple[str, ...]], ...]
    """Name -> values, in page order; both in lower case."""
    attributes: tuple[str, ...]
    category: str
    query: str
    """The query that found it when the data were collected; in effect its type."""
    path: str
    """Category path, separated by single right-pointing angle marks."""
    image: str
    instruction: str
    """A synthetic instruction, or empty."""
    instruction_attributes: tuple[str, ...]
    wishes: tuple[Wish, ...]

    @property
    def price(self) -> float:
        """Price in dollars.

        Differs from the original, where a price within a range changes from process to process:
        here it depends on the product number alone.
        """
        if len(self.prices) == 1:
            return self.prices[0]
        low, high = self.prices
        return low + (high - low) * share("price", self.asin)

    @property
    def document(self) -> str:
        """The indexed text: title, description, first bullet and options."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        first = self.bullets[0] if self.bullets else ""
        return " ".join((self.title, self.description, first, options)).lower()


def share(*names: str) -> float:
    """A number in [0, 1) that depends on the names alone."""
    digest = blake2b("\x1f".join(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def clean(
    record: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
    wishes: list[Mapping[str, Any]] | None = None,
) -> Product:
    """A product from one entry of ``items_shuffle*.json``.

    Args:
        record: The entry.
        attributes: Its entry in ``items_ins_v2*.json``.
        wishes: Its entry in ``items_human_ins.json``.
    """
    known = attributes or {}
    prices = _prices(record.get("pricing"))
    bullets = record.get("small_description") or ""
    images = record.get("images") or [""]
    return Product(
        asin=record["asin"],
        title=record.get("name") or "",
        description=record.get("full_description") or "",
        bullets=tuple(map(str, bullets)) if isinstance(bullets, list) else (str(bullets),),
        price_tag=" to ".join(f"${price}" for price in prices),
        prices=prices,
        options=_options(record.get("customization_options")),
        attributes=tuple(known["attributes"]) if "attributes" in known else PLACEHOLDER,
        category=record.get("category") or "",
        query=(record.get("query") or "").lower().strip(),
        path=record.get("product_category") or "",
        image=images[0] or "",
        instruction=known.get("instruction") or "",
        instruction_attributes=tuple(known.get("instruction_attributes") or ()),
        wishes=tuple(
            Wish(
                wish["instruction"],
                tuple(wish["instruction_attributes"]),
                tuple(wish["instruction_options"]),
            )
            for wish in wishes or ()
        ),
    )


def is_listed(record: Mapping[str, Any]) -> bool:
    """Whether the shop lists it: some records have no usable product number."""
    asin = record.get("asin")
    return isinstance(asin, str) and asin.isascii() and asin != "nan" and 0 < len(asin) <= 10


def _prices(text: object) -> tuple[float, ...]:
    """``$19.99$27.99`` -> (19.99, 27.99)."""
    parts = [re.sub(r"[^\d.]", "", part) for part in str(text or "").split("$")[1:3]]
    try:
        prices = tuple(float(part) for part in parts)
    except ValueError:
        prices = ()
    return prices or (DEFAULT_PRICE,)


def _options(table: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Names and values in lower case, without slashes, which separate the parts of an address."""
    if not isinstance(table, Mapping):
        return ()
    found = {
        name.lower(): tuple(
            entry["value"].strip().replace("/", " | ").lower() for entry in contents
        )
        for name, contents in table.items()
        if contents is not None
    }
    return tuple(found.items())


def identity(product: Product) -> list[Any]:
    """What the digest of a catalogue, and with it every task id, is made of.

    An empty list of attributes counts as the placeholder: an earlier version of the catalogue read
    it so, and task ids must not change.
    """
    return pack(replace(product, attributes=product.attributes or PLACEHOLDER))


def pack(product: Product) -> list[Any]:
    """The fields as plain lists, to be written as JSON."""
    fields = [getattr(product, name) for name in Product.__slots__]
    fields[-1] = [[wish.instruction, wish.attributes, wish.options] for wish in product.wishes]
    return fields


def unpack(fields: list[Any]) -> Product:
    """The inverse of ``pack``."""
    values: dict[str, Any] = dict(zip(Product.__slots__, fields, strict=True))
    for name in ("bullets", "prices", "attributes", "instruction_attributes"):
        values[name] = tuple(values[name])
    values["options"] = tuple((name, tuple(choices)) for name, choices in values["options"])
    values["wishes"] = tuple(
        Wish(text, tuple(attributes), tuple(options))
        for text, attributes, options in values["wishes"]
    )
    return Product(**values)
