"""What may be said to the simulator, and what its answers mean."""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 200
"""Characters of a command; the simulator's longest own are about half of that."""

_UNKNOWN = ("No known action matches that input.", "Unknown action.")
"""The second is the answer to a question answered by something else than a number."""
_QUESTION = "Ambiguous request:"
_CHOICE = re.compile(r"^(\d+):\t", re.M)
_FREE = frozenset({"look around", "inventory", "task"})


class Refused(NamedTuple):
    """Why a text never reaches the simulator."""

    answer: str


def command(action: str) -> str | Refused:
    r"""The one printable line to send for an action, or why nothing is sent.

    ``reset task`` would wipe the progress of the episode, and its failure with it. The simulator
    understands it in many spellings, so no line that holds ``reset`` passes; nothing in these
    worlds has that word in its name.

    Examples:
        >>> command(" open  door\n")
        'open door'
        >>> command("Reset the task")
        Refused(answer='The task cannot be reset.')
    """
    lines = action.strip().splitlines()
    if len(lines) > 1:
        return Refused("One action at a time, please.")
    line = " ".join(
        "".join(c if c.isprintable() else " " for c in lines[0]).split() if lines else ()
    )
    if not line:
        return Refused("Nothing to do was said.")
    if len(line) > LONGEST:
        return Refused(f"An action has at most {LONGEST} characters.")
    if "reset" in line.casefold():
        return Refused("The task cannot be reset.")
    return line


def understood(answer: str) -> bool:
    """The simulator found an action, or a choice of actions, in what was said."""
    return not answer.startswith(_UNKNOWN)


def choices(answer: str) -> tuple[str, ...]:
    """The numbers that answer a question about what was meant; empty when none was asked."""
    return tuple(_CHOICE.findall(answer)) if answer.startswith(_QUESTION) else ()


def free(line: str, answer: str) -> bool:
    """What was said neither changed anything nor let time pass."""
    nothing, cancelled = map(answer.startswith, _UNKNOWN)
    return nothing or (line.lower() in _FREE and not cancelled)
