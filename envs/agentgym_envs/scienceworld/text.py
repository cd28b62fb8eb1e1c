"""Which commands reach the simulator, and what its answers mean."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_LENGTH = 200
"""Characters of a command; the longest that the simulator lists have about half of that."""

_UNKNOWN = ("No known action matches that input.", "Unknown action.")
"""The second answers a choice among meanings that is not a number."""
_QUESTION = "Ambiguous request:"
_CHOICE = re.compile(r"^(\d+):\t", re.M)
_FREE_COMMANDS = frozenset({"look around", "inventory", "task"})


class Refused(NamedTuple):
    """Why a text is not sent to the simulator."""

    answer: str


def command(action: str) -> str | Refused:
    r"""The one printable line to send for an action, or why none is sent.

    ``reset task`` would erase the progress of the episode, and a failure too. The simulator
    understands it in many spellings, so no line that contains ``reset`` passes; no object of the
    simulator has that word in its name.

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
        return Refused("The action is empty.")
    if len(line) > MAX_LENGTH:
        return Refused(f"An action has at most {MAX_LENGTH} characters.")
    if "reset" in line.casefold():
        return Refused("The task cannot be reset.")
    return line


def understood(answer: str) -> bool:
    """Whether the simulator found an action, or a choice of actions, in a command."""
    return not answer.startswith(_UNKNOWN)


def choices(answer: str) -> tuple[str, ...]:
    """The numbers that answer a question about the meaning; empty when none was asked."""
    return tuple(_CHOICE.findall(answer)) if answer.startswith(_QUESTION) else ()


def is_free(command: str, answer: str) -> bool:
    """Whether a command changed nothing and took no time."""
    unknown, cancelled = map(answer.startswith, _UNKNOWN)
    return unknown or (command.lower() in _FREE_COMMANDS and not cancelled)
