"""Tokens of expressions in plain, Python and LaTeX notation."""

from __future__ import annotations

import re

from agentgym_envs.pythonmath.arithmetic import NoExpression

MAX_CHARACTERS = 1000
"""Longest expression."""

_PLAIN = "sin cos tan cot sec csc exp sinh cosh tanh"
FUNCTIONS = {
    **dict.fromkeys(("log", "ln"), "ln"),
    **{name: name for name in _PLAIN.split()},
    **{f"{arc}{name}": f"a{name}" for name in ("sin", "cos", "tan", "cot") for arc in ("arc", "a")},
    "abs": "abs", "floor": "floor", "ceil": "ceil", "ceiling": "ceil", "factorial": "factorial",
    "lg": "lg",
}  # fmt: skip
_LETTERS = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma "
    "Upsilon Phi Psi Omega ell"
)
GREEK = frozenset(_LETTERS.split())
_WORDS = "|".join(
    sorted({*FUNCTIONS, "sqrt", "cbrt", "binomial", "pi", *GREEK} - {"ell"}, key=len, reverse=True)
)
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![\d.a-zA-Z]))?)"
    rf"|\\(?P<command>[a-zA-Z]+)|(?P<word>{_WORDS})(?![a-zA-Z])"
    r"|(?P<letter>[a-zA-Z∞])|(?P<sign>\*\*|[-+*/^(){}\[\]!|_,'⌊⌋⌈⌉°]))"
)
_PROSE = re.compile(rf"(?<![\\a-zA-Z])(?!(?:{_WORDS})(?![a-zA-Z]))[a-zA-Z]{{3}}")
"""A word, as opposed to a product of letters."""

Token = tuple[str, str]
"""Kind and text."""


def _plain_complex(text: str) -> str:
    """Python's ``2+3j`` with ``i``, unless ``j`` is one of several unit vectors."""
    if re.search(r"(?<![a-zA-Z])i(?![a-zA-Z])|k", text):
        return text
    return re.sub(r"(?<=\d)j(?![a-zA-Z\d])", "i", text)


def tokens(text: str) -> list[Token]:
    """Split an expression into tokens.

    Raises:
        NoExpression: A character belongs to no token, or a word to no expression.
    """
    if len(text) > MAX_CHARACTERS or _PROSE.search(text):
        raise NoExpression(text[:80])
    text = _plain_complex(text)
    found: list[Token] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NoExpression(text[at:])
        kind = str(match.lastgroup)
        found.append(("word" if kind == "command" else kind, match[kind]))
        at = match.end()
    return found
