"""What may be said to a game, and what of its answer is for the reader."""

from __future__ import annotations

import re
import unicodedata
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
_DRAWN = frozenset(" _|\\/$<>-")
_TAG = re.compile(r"\[[^\]]+\]\n?")
_SUCCESS = re.compile(r"\[([^\]()]+) - succeeded[^\]()]*\]")
_COUNTERS = re.compile(r"<score>\n.*?</moves>\n?", re.S)
_SCORE = re.compile(r"<score>\n(-?\d+)\n")
_ROOM = re.compile(r"-= (.+?) =-")
_DESCRIPTION = re.compile(r"^-= .+? =-\n.*?(?=\n\[[^\]]* - succeeded\]|\Z)", re.M | re.S)
_GAIN = re.compile(r"Your score has just gone (up|down) by [a-z0-9 -]+ points?\.")
_QUESTION = re.compile(r"\n+Would you like to RESTART.*", re.S)
_ENDING = re.compile(r"\s*\*\*\* (The End|You lost!) \*\*\*.*", re.S)
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
    """Where the status line says the player is; empty if it does not."""
    score: int | None
    """The game's own count, when it was printed."""
    won: bool
    lost: bool


def command(action: str) -> str | Refused:
    r"""The one line to send for an action, or why nothing is sent.

    A NUL byte would crash the interpreter, a meta command would end or reconfigure the game, and
    a list of commands would be several steps for the price of one.

    Examples:
        >>> command(" take  the knife.\n")
        'take the knife'
        >>> command("take knife. eat meal")
        Refused(answer='One action at a time, please.')
    """
    line = unicodedata.normalize("NFKD", action[: 8 * LONGEST].strip())
    if re.search(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", line):
        return Refused("One action at a time, please.")
    line = "".join(" " if c in "\t\xa0" else c for c in line if c.isprintable() or c == "\t")
    line = " ".join(line.encode("ascii", "replace").decode().split())[:LONGEST]
    line = line.rstrip(" .;,!")
    words = line.lower().split()
    if not words:
        return Refused("Nothing to do was said.")
    if words[0] in _META or words[0].startswith("tw-"):
        return Refused(f"{words[0][:20]!r} is not possible here.")
    if _MANY.search(line):
        return Refused("One action at a time, please.")
    return line


def parse(raw: str) -> Reply:
    """Take apart what the interpreter printed in answer to one command."""
    at = raw.rfind("\n>")
    body, status = (raw, "") if at < 0 else (raw[:at], raw[at:])
    room, scores = _ROOM.search(status), _SCORE.findall(body)
    return Reply(
        body,
        tuple(_SUCCESS.findall(body)),
        room[1] if room else "",
        int(scores[-1]) if scores else None,
        "*** The End ***" in body,
        "*** You lost! ***" in body,
    )


def without_banner(body: str) -> str:
    """The first text of a game without the title drawn in characters above it."""
    lines = body.split("\n")
    drawn = [i for i, line in enumerate(lines) if "$" in line and not set(line) - _DRAWN]
    return "\n".join(lines[drawn[-1] + 1 :]) if drawn else body


def full(body: str) -> str:
    """The game's own words: no tags, counters, or run of blank lines."""
    text = _QUESTION.sub("", _TAG.sub("", _COUNTERS.sub("", body)))
    lines = "\n".join(map(str.strip, text.split("\n")))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()


def terse(body: str, room: str) -> str:
    """The same with ``room`` in place of a room's description, and no line that says nothing."""
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

