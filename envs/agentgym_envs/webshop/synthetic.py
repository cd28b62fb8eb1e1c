"""A catalogue generated from a seed: any size, the official schema, every goal winnable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from agentgym.errors import ConfigError
from agentgym_envs.webshop.files import ReadSoFar
from agentgym_envs.webshop.products import Product, clean

_VERSION = 1
"""To be raised when the same seed generates other products."""
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Kind(NamedTuple):
    """A type of product."""

    category: str
    path: str
    name: str
    """Plural, as in a search."""
    title: str
    qualities: tuple[str, ...]
    """Attributes it may have."""
    options: tuple[str, ...]
    """Options it may offer; see ``_VALUES``."""
    price: tuple[float, float]
    """Dollars."""


def _kinds(category: str, shelf: str, qualities: str, options: str, *rows: str) -> list[Kind]:
    """Kinds that share a shelf; each row is ``name: title: lowest-highest price``."""
    made = []
    for row in rows:
        name, title, price = (part.strip() for part in row.split(":"))
        low, high = (float(part) for part in price.split("-"))
        made.append(
            Kind(
                category,
                " \u203a ".join((*shelf.split(" > "), name.title())),
                name,
                title,
                tuple(part.strip() for part in qualities.split(",")),
                tuple(options.split()),
                (low, high),
            )
        )
    return made


KINDS: tuple[Kind, ...] = (
    *_kinds(
        "fashion",
        "Clothing, Shoes & Jewelry > Men > Clothing",
        "machine wash, slim fit, loose fit, long sleeve, short sleeve, cotton spandex, "
        "quick drying, moisture wicking, drawstring waist, button closure, polyester cotton",
        "colour size fit",
        "men's shirts: Men's Shirt: 12-45",
        "men's hoodies: Men's Hoodie: 18-60",
        "men's shorts: Men's Shorts: 10-40",
        "men's jackets: Men's Jacket: 30-120",
        "men's pants: Men's Pants: 18-70",
    ),
    *_kinds(
        "fashion",
        "Clothing, Shoes & Jewelry > Women > Shoes",
        "rubber sole, arch support, non slip, memory foam, ankle strap, open toe, high heel, "
        "leather sole, water resistant, lace closure",
        "colour size width",
        "women's sandals: Women's Sandals: 15-60",
        "women's boots: Women's Boots: 30-140",
        "women's sneakers: Women's Sneakers: 25-110",
        "women's loafers: Women's Loafers: 20-80",
    ),
    *_kinds(
        "beauty",
        "Beauty & Personal Care > Skin Care",
        "cruelty free, paraben free, fragrance free, alcohol free, dermatologist tested, "
        "oil free, sensitive skin, dry skin, hyaluronic acid, green tea, anti aging, vitamin c",
        "scent volume pack",
        "face creams: Face Cream: 8-60",
        "body lotions: Body Lotion: 6-35",
        "eye serums: Eye Serum: 10-80",
        "lip balms: Lip Balm: 3-18",
        "face masks: Face Mask: 4-40",
    ),
    *_kinds(
        "beauty",
        "Beauty & Personal Care > Hair Care",
        "sulfate free, tea tree, coconut oil, argan oil, color treated, damaged hair, dry hair, "
        "hair growth, natural ingredients, long lasting",
        "scent volume pack",
        "shampoos: Shampoo: 6-40",
        "conditioners: Conditioner: 6-40",
        "hair masks: Hair Mask: 8-45",
        "hair oils: Hair Oil: 7-50",
    ),
    *_kinds(
        "electronics",
        "Electronics > Accessories & Supplies",
        "fast charging, high speed, noise cancelling, hands free, plug play, easy install, "
        "carrying case, aluminum alloy, wireless charging, heavy duty, water proof, stereo sound",
        "colour length style",
        "headphones: Headphones: 15-250",
        "bluetooth speakers: Bluetooth Speaker: 18-200",
        "phone chargers: Phone Charger: 8-60",
        "hdmi cables: HDMI Cable: 6-45",
        "tripods: Tripod: 15-120",
        "security cameras: Security Camera: 25-180",
    ),
    *_kinds(
        "garden",
        "Home & Kitchen > Furniture",
        "solid wood, easy assemble, space saving, mid century, stainless steel, faux leather, "
        "storage space, height adjustable, memory foam, steel frame, living room, dining room",
        "colour material dimensions",
        "coffee tables: Coffee Table: 60-320",
        "bookcases: Bookcase: 45-260",
        "bar stools: Bar Stool: 40-220",
        "sofas: Sofa: 220-1400",
        "table lamps: Table Lamp: 18-150",
        "area rugs: Area Rug: 30-400",
    ),
    *_kinds(
        "grocery",
        "Grocery & Gourmet Food > Snacks & Drinks",
        "gluten free, non gmo, low sugar, dairy free, keto friendly, plant based, soy free, "
        "high protein, nut free, artificial flavors, certified organic, individually wrapped",
        "flavour weight pack",
        "protein bars: Protein Bars: 8-45",
        "herbal teas: Herbal Tea: 5-30",
        "coffee beans: Coffee Beans: 9-50",
        "granolas: Granola: 5-28",
        "crackers: Crackers: 4-22",
        "fruit juices: Fruit Juice: 5-30",
    ),
)
"""What the shop sells."""

_VALUES: dict[str, tuple[str, tuple[str, ...]]] = {
    "colour": (
        "Color",
        ("Black", "White", "Navy", "Charcoal", "Olive", "Burgundy", "Teal", "Beige", "Mustard"),
    ),
    "size": ("Size", ("X-Small", "Small", "Medium", "Large", "X-Large", "XX-Large")),
    "fit": ("Fit Type", ("Regular", "Tall", "Big")),
    "width": ("Width", ("Narrow", "Medium Width", "Wide")),
    "scent": ("Scent", ("Lemon", "Lavender", "Vanilla", "Rose", "Eucalyptus", "Unscented")),
    "volume": ("Size", ("1 Fl Oz", "2 Fl Oz", "4 Fl Oz", "8 Fl Oz", "16 Fl Oz")),
    "pack": ("Pack", ("Pack of 1", "Pack of 2", "Pack of 3", "Pack of 6")),
    "length": ("Length", ("3 ft", "6 ft", "10 ft", "15 ft")),
    "style": ("Style", ("Standard", "Pro", "Mini", "Travel Kit")),
    "material": ("Material", ("Oak", "Walnut", "Bamboo", "Metal", "Linen")),
    "dimensions": ("Dimensions", ("24 inch", "36 inch", "48 inch", "60 inch", "72 inch")),
    "flavour": ("Flavor", ("Chocolate", "Peanut Butter", "Berry", "Ginger", "Mint", "Sea Salt")),
    "weight": ("Size", ("8 Ounce", "12 Ounce", "1 Pound", "2 Pound", "5 Pound")),
}
"""Option -> its name on the page, and its values. No value is part of two options of one kind."""

_BRANDS_A, _BRANDS_B, _LINES = (
    words.split()
    for words in (
        "Al Bren Cor Del Eve Fen Gal Hol Ira Jun Kel Lor Mar Nor Ost Pel Quin Ros Sol Tav",
        "ora wick dale mont ette ford isa ley mere via ton bury ana lex",
        "Classic Essential Premium Everyday Signature Urban Heritage Coastal Alpine Modern Studio",
    )
)
_USES = (
    "daily use",
    "travel",
    "small apartments",
    "the whole family",
    "busy mornings",
    "weekends outdoors",
    "a gift",
    "the office",
)


@dataclass(frozen=True, slots=True)
class SyntheticCatalogue:
    """Products that depend on seed and row alone, so that a prefix is a smaller catalogue."""

    size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ConfigError(f"products={self.size}: a shop needs at least 8")

    @property
    def identity(self) -> str:
        """Includes the version of the generator."""
        return f"synthetic-{_VERSION} {self.size} {self.seed}"

    def read(self, report: ReadSoFar) -> Iterator[Product]:
        """Every product in order."""
        for row in range(self.size):
            yield product(row, self.seed)
            report(row + 1)


def product(row: int, seed: int) -> Product:
    """The product of a row."""
    record, attributes = records(row, seed)
    return clean(record, attributes)


def records(row: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of a row in ``items_shuffle*.json`` and ``items_ins_v2*.json``."""
    rng = np.random.default_rng([seed, row])
    kind = _one(rng, KINDS)
    qualities = _some(rng, kind.qualities, int(rng.integers(2, 6)))
    brand = _one(rng, _BRANDS_A) + _one(rng, _BRANDS_B)
    line, number = (
        _one(rng, _LINES),
        f"{_one(rng, 'ABCDEFGHKLMNPRST')}{int(rng.integers(10, 1000))}",
    )
    shown = " ".join(quality.title() for quality in qualities[:2])
    use = _one(rng, _USES)
    record: dict[str, Any] = {
        "asin": _asin(row, seed),
        "name": f"{brand} {line} {shown} {kind.title} for {use.title()}, Model {number}",
        "category": kind.category,
        "query": kind.name,
        "product_category": kind.path,
        "full_description": (
            f"The {line.lower()} {kind.title.lower()} by {brand} is made for {use}. "
            f"It is {', '.join(qualities)}. Customers compare it with other {kind.name}."
        ),
        "small_description": [
            f"{quality.capitalize()}: {brand} cares about {_one(rng, _USES)}"
            for quality in qualities
        ],
        "pricing": _pricing(rng, kind),
        "images": [""],
        "customization_options": _options(rng, kind),
        "average_rating": "",
    }
    wanted = qualities[: int(rng.integers(1, min(3, len(qualities)) + 1))]
    attributes = {
        "attributes": qualities,
        "instruction": f"Find me {', '.join(wanted)} {kind.name}",
        "instruction_attributes": wanted,
    }
    return record, attributes


def _one(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _some(rng: np.random.Generator, choices: Sequence[str], many: int) -> list[str]:
    return [choices[i] for i in rng.permutation(len(choices))[:many]]


def _pricing(rng: np.random.Generator, kind: Kind) -> str:
    """One price, or, for one product in ten, a range."""
    low, high = np.sort(rng.uniform(*kind.price, size=2))
    return f"${low:.2f}${high:.2f}" if rng.random() < 0.1 else f"${low:.2f}"


def _options(rng: np.random.Generator, kind: Kind) -> dict[str, list[dict[str, str]]]:
    """Zero to two of the options of its type, each with two to four values."""
    table = {}
    for option in sorted(_some(rng, kind.options, int(rng.integers(0, 3)))):
        name, values = _VALUES[option]
        picked = set(_some(rng, values, int(rng.integers(2, 5))))
        table[name] = [{"value": value} for value in values if value in picked]
    return table


def _asin(row: int, seed: int) -> str:
    """``B`` and nine letters or digits, unique per row: the step is coprime to their number."""
    space = len(_LETTERS) ** 9
    code = (row * 31_415_926_535_897 + seed * 2_718_281_829 + 1_618_033_988_749) % space
    letters = []
    for _ in range(9):
        code, at = divmod(code, len(_LETTERS))
        letters.append(_LETTERS[at])
    return "B" + "".join(letters)
