"""Commands of an agent in a browser, as text: parsed, and carried out as a person would."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from agentgym.browser.tab import Tab
from agentgym.errors import ConfigError

MANUAL = """\
Each action is one of these commands. An element is given by the number in
brackets before it on the page, or by its name in quotes.
`click 3`, `click "Submit"`: click on an element. `double click 3`, `hover 3` likewise.
`click at 80,120`: click at a point, x to the right and y down, in pixels.
`type 4 some text`: replace the text in element 4.
`select 5 Monday`: choose an option of element 5, a combobox.
`press Enter`: press a key: a character, Enter, Tab, Backspace, Escape, ArrowUp, Control+a, ...
`scroll 3 down`: turn the mouse wheel over element 3, down or up; `scroll down` over the page.
`drag 3 to 5`, `drag 3 by 20,-10`, `drag at 10,10 to 60,80`: press the mouse button, move, release.
`wait`: do nothing for a moment."""

LONGEST = 2000
"""Characters of a text that is typed; more are refused."""


class Refused(Exception):
    """A command that cannot be carried out; its text gives the reason."""


class Command(NamedTuple):
    """A form of command."""

    pattern: re.Pattern[str]
    run: Callable[[Tab, re.Match[str]], None]


def perform(tab: Tab, action: str) -> None:
    """Carry out one command.

    Raises:
        Refused: It is no command, or names an element that is not there.
    """
    line = action.strip()
    for command in COMMANDS:
        if found := command.pattern.fullmatch(line):
            return command.run(tab, found)
    raise Refused(
        "Unknown command. Commands: click 3, type 4 text, select 5 option, press Enter, "
        "scroll 3 down, drag 3 to 5, hover 3, click at 80,120, wait."
    )


def _element(tab: Tab, given: str) -> int:
    """The element of a number, or of a name in quotes."""
    if not given.startswith('"'):
        return int(given) if len(given) < 9 else 0
    found = tab.named(given.strip('"'))
    if found is None:
        raise Refused(f"There is no element {given} on the page.")
    return found


def _place(tab: Tab, given: str) -> tuple[float, float]:
    found = tab.center(_element(tab, given))
    if found is None:
        raise Refused(f"There is no element {given} on the page.")
    return found


def _click(tab: Tab, found: re.Match[str]) -> None:
    tab.click(*_place(tab, found["on"]), count=2 if found["double"] else 1)


def _hover(tab: Tab, found: re.Match[str]) -> None:
    tab.move(*_place(tab, found["on"]))


def _click_at(tab: Tab, found: re.Match[str]) -> None:
    tab.click(float(found["x"]), float(found["y"]))


def _type(tab: Tab, found: re.Match[str]) -> None:
    text = found["text"]
    if len(text) > LONGEST:
        raise Refused(f"The text has {len(text)} characters; at most {LONGEST} can be typed.")
    tab.click(*_place(tab, found["on"]))
    tab.evaluate("agentgym.clear()")
    if text:
        tab.insert(text)
    else:
        tab.press("Delete")


def _select(tab: Tab, found: re.Match[str]) -> None:
    _place(tab, found["on"])
    if not tab.choose(_element(tab, found["on"]), found["text"]):
        raise Refused(f"Element {found['on']} has no option {found['text']!r}.")


def _press(tab: Tab, found: re.Match[str]) -> None:
    try:
        tab.press(found["key"])
    except ConfigError as problem:
        raise Refused(str(problem)) from problem


def _scroll(tab: Tab, found: re.Match[str]) -> None:
    x, y = _place(tab, found["on"]) if found["on"] else (80.0, 120.0)
    tab.wheel(x, y, 100 if found["way"] == "down" else -100)


def _drag(tab: Tab, found: re.Match[str]) -> None:
    tab.drag(_place(tab, found["on"]), _place(tab, found["to"]))


def _drag_by(tab: Tab, found: re.Match[str]) -> None:
    x, y = _place(tab, found["on"])
    tab.drag((x, y), (x + float(found["x"]), y + float(found["y"])))


def _drag_at(tab: Tab, found: re.Match[str]) -> None:
    start, end = (float(found["x"]), float(found["y"])), (float(found["u"]), float(found["v"]))
    tab.drag(start, end)


def _wait(tab: Tab, found: re.Match[str]) -> None:
    """Time passes after every command."""


ON, TO = r'(?P<on>\d+|"[^"]+")', r'(?P<to>\d+|"[^"]+")'
NUMBER = r"-?\d{1,4}(?:\.\d{1,2})?"
POINT = rf"(?P<x>{NUMBER}) ?, ?(?P<y>{NUMBER})"
OTHER = rf"(?P<u>{NUMBER}) ?, ?(?P<v>{NUMBER})"

COMMANDS = tuple(
    Command(re.compile(pattern, re.ASCII | re.DOTALL), run)
    for pattern, run in (
        (rf"(?P<double>double )?click {ON}", _click),
        (rf"hover {ON}", _hover),
        (rf"click at {POINT}", _click_at),
        (rf"type {ON} ?(?P<text>.*)", _type),
        (rf"select {ON} (?P<text>.+)", _select),
        (r"press (?P<key>\S{1,40})", _press),
        (rf"scroll (?:{ON} )?(?P<way>up|down)", _scroll),
        (rf"drag {ON} to {TO}", _drag),
        (rf"drag {ON} by {POINT}", _drag_by),
        (rf"drag at {POINT} to {OTHER}", _drag_at),
        (r"wait", _wait),
    )
)
