r"""Removing the dress of an answer: sentences, boxes, markup, spacing, units.

LaTeX, Python and Unicode spellings of one sign become one character, so that the structure of an
answer can be read from single characters: ``≤ ≥ ≠ ∈ ∪ ∖ ± ∞ ∅``, ``⦃ ⦄`` for the braces of a set.
"""

from __future__ import annotations

import re

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon varphi chi psi omega phi Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
)
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00d7\u2a2f", r"\times "),
        **dict.fromkeys("\u00b7\u22c5\u2219", r"\cdot "),
        "\u00f7": r"\div ", "\u2215": "/", "\u2044": "/", "\u2032": "'", "\u2019": "'",
        "\u00bd": r"\frac{1}{2}", "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}",
        "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u215b": r"\frac{1}{8}",
        "\u27e8": "⟨", "\u27e9": "⟩", "\u2329": "⟨", "\u232a": "⟩",
        "\u2264": "≤", "\u2a7d": "≤", "\u2265": "≥", "\u2a7e": "≥", "\u2205": "∅", "\u00f8": "∅",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "\ufeff": "",
        "\uff0c": ",", "\uff08": "(", "\uff09": ")", "\uff1e": ">", "\uff1c": "<", "\uff1d": "=",
        "\uff1a": ":", "\u2236": ":", "\u20ac": " euros ", "\u00a3": " pounds ",
        **{char: rf"\{name} " for char, name in zip(
            "αβγδεζηθικλμνξπρστυφχψωϕΓΔΘΛΞΠΣΦΨΩ",
            _GREEK.split(), strict=True,
        )},
    }
)  # fmt: skip
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))

_SIGNS = (
    (r"\\(?:leqslant|leqq|leq|le)(?![a-zA-Z])|<=|=<", "≤"),
    (r"\\(?:geqslant|geqq|geq|ge)(?![a-zA-Z])|>=|=>", "≥"),
    (r"\\(?:neq|ne)(?![a-zA-Z])|!=(?!=)|<>", "≠"),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\(?:approx|simeq|sim)(?![a-zA-Z])", "="),
    (r"\\in(?![a-zA-Z])", "∈"),
    (r"\\cup(?![a-zA-Z])|(?<=[\])])\s*[Uu]\s*(?=[\[(])", "∪"),
    (r"\\(?:setminus|backslash)(?![a-zA-Z])", "∖"),
    (r"\\pm(?![a-zA-Z])|\+/-|\+-(?=\d)", "±"),
    (r"\\mp(?![a-zA-Z])", "∓"),
    (r"\\(?:mid|vert|lvert|rvert)(?![a-zA-Z])", "|"),
    (r"\\colon(?![a-zA-Z])", ":"),
    (r"\\langle(?![a-zA-Z])", "⟨"),
    (r"\\rangle(?![a-zA-Z])", "⟩"),
    (r"\\lfloor(?![a-zA-Z])", "⌊"),
    (r"\\rfloor(?![a-zA-Z])", "⌋"),
    (r"\\lceil(?![a-zA-Z])", "⌈"),
    (r"\\rceil(?![a-zA-Z])", "⌉"),
    (r"\\(?:emptyset|varnothing)(?![a-zA-Z])|\\\{\s*\\\}|\b[eE]mpty set\b", "∅"),
    (r"\\infty(?![a-zA-Z])|\b(?:oo|inf|infty|infinity|Infinity)\b", "∞"),
    (r"\+\s*∞", "∞"),
    (r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree(?![a-zA-Z])|\\circ(?![a-zA-Z])", "°"),
    (r"\s*\b(?:degrees|degree|deg)\b", "°"),
    (r"\\?%|\s*\b(?:percent|percentage|pct)\b", "%"),
    (r"\\mathbb\s*\{?\s*R\s*\}?|\\R(?![a-zA-Z])|\ball real numbers\b", "ℝ"),
    (r"\\mathbb\s*\{?\s*Z\s*\}?|\\Z(?![a-zA-Z])", "ℤ"),
    (r"\\lbrace(?![a-zA-Z])|\\\{", "⦃"),
    (r"\\rbrace(?![a-zA-Z])|\\\}", "⦄"),
)
_STYLE = (
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])\s*\.?(?=\W|$)", ""),
    (r"\\textcolor\s*\{[^{}]*\}\s*\{([^{}]*)\}", r" \1 "),
    (r"\\(?:text|mathrm|mbox|textbf|textit|mathbf|mathit|operatorname|hbox|rm|bf|mathsf)"
     r"\s*\{([^{}]*)\}", r" \1 "),
    (r"\\[dtc]frac(?![a-zA-Z])|\\sfrac(?![a-zA-Z])", r"\\frac"),
    (r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    (r",\s*\\!\s*(?=\d{3})|(?<=\d)\{\s*,\s*\}\s*(?=\d{3})|(?<=\d)\\[,; ]\s*(?=\d{3}(?!\d))", ""),
    (r"\\!|\\hspace\s*\{[^{}]*\}|\\phantom\s*\{[^{}]*\}|\\boxed|\\fbox", ""),
    (r"\\[,;:> ]|~|\\(?:q?quad|thinspace|medspace|enspace)(?![a-zA-Z])", " "),
    (r"\\[()\[\]]", " "),
    (r"\\([_&#])", r"\1"),
    (r"\b(?:sympy|math|np|numpy|cmath)\.", ""),
    (r"\bMatrix\s*\((\[.*\])\)", r"\1"),
)  # fmt: skip
_LEAD = re.compile(
    r"^\W*(?:(?:so|thus|hence|therefore|finally)\b,?\s*)?(?:(?:the|my|our)\s+)?(?:final\s+)?"
    r"(?:correct\s+)?answers?\s*(?:(?:is|are)\b|:|=)\s*:?\s*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$\$([^$]+)\$\$|\$([^$\n]+)\$|\\\(([^\n]+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_BEFORE = re.compile(r"[A-Za-z][A-Za-z ,:'\n-]*")
_AFTER = re.compile(r"(?: is (?:the|our|my)(?: final)? (?:answer|solution|result))?[.!]*")
_HEDGE = re.compile(
    r"\b(?:not?|never|\w+n't|x?or|and|nor|about|approx\w*|almost|nearly|than|least|most|up to|if"
    r"|unless|except|between|minus|negative|plus|times|half|twice|double|over|of|wrong|unlike)\b",
    re.IGNORECASE,
)
_CURRENCY = "dollars"
ROW = "⏎"
"""The end of a row of a matrix."""


def plain(answer: str) -> str:
    """An answer without its dress, in single characters for relations, sets and infinity."""
    text = _boxed(answer.strip())
    text = _formula(_LEAD.sub("", text))
    text = _dollars(_unmarked(text)).translate(_CHARACTERS)
    text = re.sub("√\\s*(\\d+|[a-zA-Z])", r"\\sqrt{\1}", text).replace("√", r"\sqrt")
    for table, mark in ((_SUPERSCRIPTS, "^"), (_SUBSCRIPTS, "_")):
        text = re.sub(
            f"[{''.join(table)}]+",
            lambda found, table=table, mark=mark: (  # type: ignore[misc]
                f"{mark}{{{''.join(table[char] for char in found[0])}}}"
            ),
            text,
        )
    # Without a matrix, a double backslash is one that was escaped twice.
    text = text.replace("\\\\", ROW if "\\begin" in text else "\\")
    for pattern, replacement in (*_STYLE, *_SIGNS):
        text = re.sub(pattern, replacement, text)
    text = re.sub(r"\s+", " ", text).strip()
    text = text.removeprefix("=").strip()
    return text.rstrip(".,;").strip() if not text.endswith("...") else text


def _boxed(text: str) -> str:
    """What the boxes hold; the whole text if there is none."""
    found: list[str] = []
    for match in re.finditer(r"\\(?:boxed|fbox|framebox)\s*", text):
        if len(found) > 8:
            return ""
        start = match.end()
        if text[start : start + 1] != "{":
            found.append(text[start : start + 1])
            continue
        depth = 0
        for at in range(start, len(text)):
            depth += (text[at] == "{") - (text[at] == "}")
            if depth == 0:
                found.append(text[start + 1 : at])
                break
    inner = dict.fromkeys(each.strip() for each in found if "\\boxed" not in each)
    return ", ".join(inner) if inner else text


def _formula(text: str) -> str:
    r"""The one formula at the end of a sentence with words that do not change its value.

    Words after it stay, because they may be a unit.

    Examples:
        >>> _formula("Therefore $x > 5$ is the solution."), _formula(r"Answer \( 9 \)")
        ('x > 5', '9')
        >>> _formula("It is not $9$."), _formula("A run of $125$ km")
        ('It is not $9$.', 'A run of $125$ km')
    """
    found = list(_FORMULA.finditer(text))
    if len(found) != 1:
        return text
    before, after = text[: found[0].start()].strip(), text[found[0].end() :].rstrip()
    if not _BEFORE.fullmatch(before) or not _AFTER.fullmatch(after) or _HEDGE.search(before):
        return text
    return next(group for group in found[0].groups() if group is not None).strip()


def _unmarked(text: str) -> str:
    """Without Markdown around the answer."""
    text = text.strip().rstrip(".").strip()
    for mark in ("**", "__", "`", "*"):
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            text = text[len(mark) : -len(mark)].strip()
    return text


def _dollars(text: str) -> str:
    r"""Dollar signs: delimiters of mathematics in pairs, else a currency, as ``\$`` always is."""
    text = text.replace("\\$", f" {_CURRENCY} ")
    if text.count("$") % 2:
        text = re.sub(r"^\s*\$|\$\s*$", f" {_CURRENCY} ", text, count=1)
    return text.replace("$", " ").strip()
