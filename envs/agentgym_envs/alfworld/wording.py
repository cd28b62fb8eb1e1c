"""The two wordings of ALFWorld's texts, and reading which one a game file uses.

The reference engine evaluates Python expressions in a file's grammar. This reader never runs
anything: it looks for the goal and for the few sentences that ever differed.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal, NamedTuple

from agentgym.errors import EnvError
from agentgym_envs.alfworld import tables

UNKNOWN_GOAL = "UNKNOWN GOAL"
"""What the grammar in ALFWorld's wheel has in place of a goal."""


class Wording(NamedTuple):
    """What differs between the data of versions up to 0.3 and since 0.4."""

    put: str
    """Command that puts down an object, with {o} and {r}; its answer has the same words."""
    arrive_at_place: bool
    """Arriving names the receptacle; else the number of the location."""
    help: str
    """The answer to the command ``help``; empty where there is no such command."""


Name = Literal["new", "old"]

_NEW_PUT = 'template :: "move {o} to {r}"'
_OLD_PUT = 'template :: "put {o} in/on {r}"'
_NEW_SAYS = "You move the {o.name} to the {r.name}."
_OLD_SAYS = "You put the {o.name} in/on the {r.name}."
_NEW_ARRIVES = "You arrive at {r.name}. "
_OLD_ARRIVES = "You arrive at {lend.name}. "

_SENTENCES = "cda5707704f3cf03b520abab3d4f8827e89dff8010ac63c52a67796daab97875"
"""SHA-256 of ALFWorld's grammar without goal and help, in the old wording: the sentences that our
engine writes. Versions 0.3.3 to 0.4.2 and the games of json_2.1.1 differ in nothing else."""
_RULES = (
    "d497fad724a094574b3c88bb78914f56db2227d49bc7a214859ac5f63bab28b1",
    "030e152b072e607018749cf0e8b4dab62d7693e3d629a03269a1aeeca21b9ad3",
)
"""SHA-256 of ALFWorld's rules without comments and help: in the games of json_2.1.1, and since."""

_GOAL = r'"rhs":\s*("Your task is to: (?:[^"\\]|\\.)*")'
_HELP = r'"help.feedback":\s*\[\s*\{\s*"rhs":\s*("(?:[^"\\]|\\.)*")'


def check_sentences(grammar: str) -> None:
    """Refuse a grammar with other sentences than ours, which would be played in ours.

    Raises:
        EnvError: It has some.
    """
    if sentences_digest(grammar) != _SENTENCES:
        raise EnvError(
            "its grammar has other sentences than ALFWorld's, which this engine does not write: "
            "play it with ALFWorld's own engine"
        )


def check_rules(domain: str) -> None:
    """Refuse a domain with other rules than ours.

    Raises:
        EnvError: It has some.
    """
    if rules_digest(domain) not in _RULES:
        raise EnvError(
            "its domain has other rules than ALFWorld's, which this engine does not follow: play "
            "it with ALFWorld's own engine"
        )


def sentences_digest(grammar: str) -> str:
    """SHA-256 of the sentences, whatever the goal, the wording and the spacing."""
    text = re.sub(_GOAL, '"rhs": GOAL', grammar)
    text = re.sub(r"\naction help \{.*?\n\}\n", "", text, flags=re.DOTALL)
    return _digest(_to_old(text))


def rules_digest(domain: str) -> str:
    """SHA-256 of the rules, whatever the comments and the spacing; without ``help``."""
    plain = re.sub(r";[^\n]*", "", domain)
    rest, help_, _ = plain.partition("(:action help")
    # The action for `help` is the last one; without it, what closes the domain is left.
    return _digest(rest if help_ else rest.rstrip().removesuffix(")"))


def _digest(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def read(grammar: str) -> tuple[Wording, str]:
    """The wording and the goal sentence of a game file's grammar.

    Raises:
        EnvError: The grammar is not ALFWorld's.
    """
    goal = re.search(_GOAL, grammar)
    help_ = re.search(_HELP, grammar) if re.search(r"action\s+help\s*\{", grammar) else None
    new, old = (
        (_NEW_PUT in grammar, _NEW_SAYS in grammar),
        (_OLD_PUT in grammar, _OLD_SAYS in grammar),
    )
    if goal is None or not (all(new) or all(old)):
        raise EnvError(
            "the grammar is not ALFWorld's: expected a goal after 'Your task is to: ' and the "
            "command 'move {o} to {r}' or 'put {o} in/on {r}'"
        )
    try:
        texts = json.loads(goal[1]), json.loads(help_[1]) if help_ else ""
    except json.JSONDecodeError as problem:
        raise EnvError(f"a sentence in the grammar is not a JSON text: {problem}") from problem
    task = texts[0].removeprefix("Your task is to: ").removesuffix(".")
    put = "move {o} to {r}" if all(new) else "put {o} in/on {r}"
    # The reference engine's parser of sentences skips the blanks they begin with.
    return Wording(put, _NEW_ARRIVES in grammar, str(texts[1]).lstrip()), task


def grammar(goal: str, wording: Name) -> str:
    """ALFWorld's grammar with a goal and in a wording, for the reference engine.

    Raises:
        MissingExtra: ALFWorld is not installed.
    """
    text = tables.grammar().replace(UNKNOWN_GOAL, goal)
    if wording == "new":
        return text
    return re.sub(r"\naction help \{.*?\n\}\n", "", _to_old(text), flags=re.DOTALL)


def _to_old(text: str) -> str:
    for new, old in [
        (_NEW_PUT, _OLD_PUT),
        (_NEW_SAYS, _OLD_SAYS),
        (_NEW_ARRIVES, _OLD_ARRIVES),
    ]:
        text = text.replace(new, old)
    return text


def domain(wording: Name) -> str:
    """ALFWorld's rules to go with a grammar: the reference engine wants one text for each action.

    Raises:
        MissingExtra: ALFWorld is not installed.
    """
    text = tables.domain()
    # The action for `help` is the last one; what is left after it closes the domain.
    return text if wording == "new" else text.partition("(:action help")[0] + "\n)\n"
