"""The reward of a purchase: type, attributes, options and price, each compared with the goal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from agentgym_envs.webshop.goals import Goal
from agentgym_envs.webshop.nouns import LEXICON, nouns
from agentgym_envs.webshop.products import Product

Rules = Literal["fixed", "paper"]

COLOURS = re.findall(
    r"\w+",
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown "
    "burgundy camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee "
    "cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso fuchsia "
    "gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender "
    "lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor "
    "mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red "
    "rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower "
    "tan taupe teal tiger turquoise violet walnut wheat white wine yellow",
)
"""The first one that an option's value contains replaces the value."""

_STEP = "\u203a"
"""Between the parts of a category path."""

CLOSE = 85
"""Two texts match when their similarity, from 0 to 100, is above this."""


class Reward(NamedTuple):
    """The parts of a reward, under the names that the original reports."""

    total: float
    """In [0, 1]; 1 is success."""
    r_type: float
    r_att: float
    r_option: float
    """Share of the goal's options that were chosen; 1 when it has none."""
    r_price: float
    w_att: float
    w_option: float
    w_price: float
    query_match: bool
    category_match: bool
    title_score: float


def judge(
    bought: Product,
    goal: Goal,
    chosen: Mapping[str, str],
    *,
    rules: Rules = "fixed",
    tagger: str = LEXICON,
) -> Reward:
    """Score a purchase.

    Args:
        bought: The product.
        goal: What was asked for.
        chosen: Option name -> chosen value.
        rules: ``paper`` is the released code. It divides the nouns that two titles share by all
            nouns of the goal's title, repeated ones included; and it compares an option of a
            synthetic goal with its name attached and its colour not shortened, while the chosen
            value is shortened: a goal such as "1877black" then cannot be reached. ``fixed``
            counts each noun once and shortens both values; equal values always match.
        tagger: See ``nouns``.

    Source:
        Yao et al. 2022, section 3 (reward), and the released code for the comparison of texts.
    """
    kind = _type_reward(bought, goal, tagger, repeated=rules == "paper")
    attributes = _attribute_hits(bought, goal.attributes)
    options = (_paper_hits if rules == "paper" else _fixed_hits)(goal, tuple(chosen.values()))
    affordable = bought.price <= goal.bound
    wanted, picked = len(goal.attributes), len(goal.options)
    parts = wanted + picked + 1
    return Reward(
        total=kind[0] * (attributes + options + affordable) / parts,
        r_type=kind[0],
        r_att=attributes / wanted if wanted else 1.0,
        r_option=options / picked if picked else 1.0,
        r_price=float(affordable),
        w_att=wanted / parts,
        w_option=picked / parts,
        w_price=1 / parts,
        query_match=kind[1],
        category_match=kind[2],
        title_score=kind[3],
    )


def _type_reward(
    bought: Product, goal: Goal, tagger: str, *, repeated: bool
) -> tuple[float, bool, bool, float]:
    """Factor, query match, category match and title score. Later rules override earlier ones."""
    same_query = bought.query == goal.query
    shared = {part.strip() for part in bought.path.split(_STEP)} & {
        part.strip() for part in goal.path.split(_STEP)
    }
    same_category = len(shared) >= 2
    wanted = nouns(goal.title, tagger)
    total = len(wanted) if repeated else len(set(wanted))
    title = len({*wanted} & {*nouns(bought.title, tagger)}) / total if wanted else 0.2
    factor = 1.0 if same_query or same_category or title > 0.2 else 0.5
    if title < 0.1:
        factor = 0.1
    if title == 0:
        factor = 0.0
    return factor, same_query, same_category, title


def _attribute_hits(bought: Product, wanted: tuple[str, ...]) -> int:
    """Number of attributes that the product has, or that its texts contain."""
    texts = (bought.title.lower(), " ".join(bought.bullets).lower(), bought.description.lower())
    return sum(
        any(similar(own, attribute) for own in bought.attributes)
        or any(attribute in text for text in texts)
        for attribute in wanted
    )


def _paper_hits(goal: Goal, chosen: tuple[str, ...]) -> int:
    """Number of options of the goal that resemble a chosen value, by the released code."""
    shortened = [colour(value) for value in chosen]
    hits = 0
    for name, value in goal.options:
        # A pair is replaced only where one of its two texts is exactly a colour.
        pair = (name, value)
        text = colour(value) if name is None else next((c for c in COLOURS if c in pair), str(pair))
        hits += any(similar(own, text) for own in shortened)
    return hits


def _fixed_hits(goal: Goal, chosen: tuple[str, ...]) -> int:
    """The same number, with both values shortened."""
    return sum(
        any(own == value or similar(colour(own), colour(value)) for own in chosen)
        for _, value in goal.options
    )


def colour(value: str) -> str:
    """The first colour contained in a value, else the value itself.

    Examples:
        >>> colour("1877black"), colour("rectangular"), colour("10.5")
        ('black', 'tan', '10.5')
    """
    return next((name for name in COLOURS if name in value), value)


def similar(one: str, other: str) -> bool:
    """Whether two texts have nearly the same set of words (TheFuzz's token set ratio)."""
    from rapidfuzz.fuzz import token_set_ratio
    from rapidfuzz.utils import default_process

    # TheFuzz drops the characters of Latin-1 above ASCII, and only these, before it compares.
    pair = (text.translate(_LATIN) for text in (one, other))
    return round(token_set_ratio(*pair, processor=default_process)) > CLOSE


_LATIN = dict.fromkeys(range(128, 256))
