"""Commands that may be sent to a game, and the readable part of its answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 198
"""Bytes of a command that fit the interpreter's buffer."""

_META = frozenset(
    re.findall(
        r"\S+",
        "quit q restart restore save verify version script transcript superbrief brief verbose "
        "superverbose normal short long notify undo oops o abstract actions gonear purloin random "
        "rules relations scope showheap showme showverb test trace tree print_state enable disable "
        "restrict recording replay nouns pronouns fullscore full",
    )
)
_MANY = re.compile(r"[.;,]|\b(?:then|and|all|every|everything|each|both)\b", re.I)
_UNSAFE = re.compile(r"[^A-Za-z0-9 '\"_&#/()?:+%.;,-]")
_ONE = "One action at a time, please."
_DRAWN = frozenset(" _|\\/$<>-")
_TAG = re.compile(r"\[[^\]]+\]\n?")
_SUCCESS = re.compile(r"\[([^\]()]+) - succeeded[^\]()]*\]")
_COUNTERS = re.compile(r"<score>\n.*?</moves>\n?", re.S)
_SCORE = re.compile(r"<score>\n(-?\d+)\n")
_ROOM = re.compile(r"-= (.+?) =-")
_DESCRIPTION = re.compile(r"^-= .+? =-\n.*?(?=\n\[[^\]]* - succeeded\]|\Z)", re.M | re.S)
_GAIN = re.compile(r"Your score has just gone (up|down) by [a-z0-9 -]+ points?\.")
_QUESTION = re.compile(r"\n+Would you like to RESTART.*", re.S)
_ENDING = re.compile(r"\n\s*\*\*\* (The End|You lost!) \*\*\*\n.*", re.S)
_COOKBOOK = re.compile(
    r"[^\n]*\n+Recipe #\d+\n.*?Ingredients:\n(?P<what>.*?)\n\n+"
    r"Directions:\n(?P<how>.*?)(?:\n\n|\Z)",
    re.S,
)


class Refused(NamedTuple):
    """Why a text never reaches the game."""

    answer: str


class Reply(NamedTuple):
    """The parts of what the interpreter printed."""

    body: str
    """Everything above the prompt, trace tags included."""
    events: tuple[str, ...]
    """The game's actions that succeeded, outermost only, in order."""
    room: str
    """The room in the status line; empty if there is none."""
    score: int | None
    """The game's own count, when it was printed."""
    won: bool
    lost: bool


def command(action: str, names: Iterable[str] = ()) -> str | Refused:
    r"""The one line to send for an action, or why nothing is sent.

    A NUL byte would crash the interpreter, a meta command would end or reconfigure the game, a
    list of commands would be several steps for the price of one, and the signs by which a game's
    answer is read (its trace repeats the command) would let a player forge a victory.

    Args:
        action: The agent's words.
        names: Names in this game that look like lists, see ``is_list``.

    Examples:
        >>> command(" take  the knife.\n")
        'take the knife'
        >>> command("take knife. eat meal")
        Refused(answer='One action at a time, please.')
    """
    line = unicodedata.normalize("NFKD", action[: 8 * LONGEST].strip())
    if len(line.splitlines()) > 1:
        return Refused(_ONE)
    line = "".join(
        c for c in line if c == "\t" or (c.isprintable() and not unicodedata.combining(c))
    )
    line = " ".join(_UNSAFE.sub(" ", line.encode("ascii", "replace").decode()).split())
    line = line[:LONGEST].rstrip(" .;,")
    first = line.lower().partition(" ")[0]
    if not line:
        return Refused("The action is empty.")
    if first in _META or first.startswith("tw-"):
        return Refused(f"{first!r} is not possible here.")
    rest = line
    for name in names:
        rest = rest.replace(name, "")
    return Refused(_ONE) if is_list(rest) else line


def is_list(line: str) -> bool:
    """A game would read this as several commands, or as one that acts on several things."""
    return _MANY.search(line) is not None


def parse(raw: str) -> Reply:
    """Take apart what the interpreter printed in answer to one command."""
    at = raw.rfind("\n>")
    body, status = (raw, "") if at < 0 else (raw[:at], raw[at:])
    ending = _ENDING.search(body)
    room, scores = _ROOM.search(status), _SCORE.findall(body)
    return Reply(
        body,
        tuple(_SUCCESS.findall(body)),
        room[1] if room else "",
        int(scores[-1]) if scores else None,
        ending is not None and ending[1] == "The End",
        ending is not None and ending[1] == "You lost!",
    )


def without_banner(body: str) -> str:
    """The first text of a game without the title drawn in characters above it."""
    lines = body.split("\n")
    drawn = [i for i, line in enumerate(lines) if "$" in line and not set(line) - _DRAWN]
    return "\n".join(lines[drawn[-1] + 1 :]) if drawn else body


def describes_room(body: str) -> bool:
    """The game printed what a room looks like."""
    return _DESCRIPTION.search(body) is not None


def from_room(body: str) -> str:
    """A body from its first description of a room on."""
    found = _DESCRIPTION.search(body)
    return body[found.start() :] if found else body


def full(body: str) -> str:
    """The game's own words: no tags, counters, or run of blank lines."""
    text = _QUESTION.sub("", _TAG.sub("", _COUNTERS.sub("", body)))
    lines = "\n".join(map(str.strip, text.split("\n")))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def terse(body: str, room: str) -> str:
    """The same with ``room`` in place of a room's description, and no empty phrases."""
    text = _TAG.sub("", _COUNTERS.sub("", _DESCRIPTION.sub(lambda _: f"\n{room}\n", body)))
    text = _COOKBOOK.sub(_recipe, text)
    text = _ENDING.sub(lambda end: "\nYou won!" if end[1] == "The End" else "\nYou lost!", text)
    text = _GAIN.sub(lambda gain: f"Score {gain[1]}.", text)
    return "\n".join(filter(None, map(str.strip, text.split("\n"))))


def _recipe(found: re.Match[str]) -> str:
    what, how = (
        ", ".join(filter(None, map(str.strip, found[part].split("\n")))) for part in ("what", "how")
    )
    return f"Ingredients: {what}. Directions: {how}."
