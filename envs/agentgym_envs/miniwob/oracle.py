"""Commands that solve the simpler pages, from the task and the page as the agent sees it."""

from __future__ import annotations

import re
from collections.abc import Callable

ELEMENT = re.compile(
    r'^ *\[(?P<number>\d+)\] (?P<role>[\w-]+)(?: "(?P<name>[^"]*)")?', re.MULTILINE
)

Plan = tuple[str, ...]


def plan(page: str, goal: str, shown: str) -> Plan | None:
    """Commands that win, or None."""
    solve = ORACLES.get(page)
    try:
        return None if solve is None else solve(goal, Page(shown))
    except LookupError:
        return None


class Page:
    """The elements of an observation."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.elements = [match.groupdict(default="") for match in ELEMENT.finditer(shown)]

    def find(self, name: str, *roles: str, at: int = 0) -> str:
        """Number of the element of a name.

        Raises:
            LookupError: There is none.
        """
        wanted = name.strip().lower()
        found = [
            each["number"]
            for each in self.elements
            if each["name"].strip().lower() == wanted and (not roles or each["role"] in roles)
        ]
        return found[at]

    def name(self, role: str, at: int = 0) -> str:
        """Name of an element of a role.

        Raises:
            LookupError: There is none.
        """
        return [each["name"] for each in self.elements if each["role"] == role][at]

    def role(self, role: str, at: int = 0) -> str:
        """Number of an element of a role.

        Raises:
            LookupError: There is none.
        """
        return [each["number"] for each in self.elements if each["role"] == role][at]


def quoted(goal: str) -> list[str]:
    """What the task puts in quotes."""
    return re.findall(r'"([^"]*)"', goal)


def _click_named(goal: str, page: Page) -> Plan:
    return (f"click {page.find(quoted(goal)[0])}",)


def _test(goal: str, page: Page) -> Plan:
    return (f"click {page.role('button')}",)


def _test_two(goal: str, page: Page) -> Plan:
    return (f"click {page.find(goal.rstrip('.').rsplit(' ', 1)[1], 'button')}",)


def _link(goal: str, page: Page) -> Plan:
    return (f"click {page.find(quoted(goal)[0], 'link', 'span')}",)


def _focus(goal: str, page: Page) -> Plan:
    return (f"click {page.role('textbox')}",)


def _focus_nth(goal: str, page: Page) -> Plan:
    nth = re.findall(r"(\d+)(?:st|nd|rd|th)", goal)[0]
    return (f"click {page.role('textbox', int(nth) - 1)}",)


def _submit(page: Page, answer: str) -> Plan:
    return (f"type {page.role('textbox')} {answer}", f"click {page.find('Submit', 'button')}")


def _enter(goal: str, page: Page) -> Plan:
    return _submit(page, quoted(goal)[0])


def _login(goal: str, page: Page) -> Plan:
    user, password = quoted(goal)[:2]
    fields = page.role("textbox"), page.role("textbox", 1)
    return (
        f"type {fields[0]} {user}",
        f"type {fields[1]} {password}",
        f"click {page.find('Login')}",
    )


def _password(goal: str, page: Page) -> Plan:
    word = quoted(goal)[0]
    return (
        f"type {page.role('textbox')} {word}",
        f"type {page.role('textbox', 1)} {word}",
        f"click {page.find('Submit')}",
    )


def _option(goal: str, page: Page) -> Plan:
    wanted = re.findall(r"Select (.*) and click Submit", goal)[0]
    return (f"click {page.find(wanted, 'radio')}", f"click {page.find('Submit')}")


def _checkboxes(goal: str, page: Page) -> Plan:
    wanted = re.findall(r"Select (.*) and click Submit", goal)[0]
    names = [] if wanted == "nothing" else wanted.split(", ")
    boxes = (f"click {page.find(name, 'checkbox')}" for name in names)
    return (*boxes, f"click {page.find('Submit')}")


def _list(goal: str, page: Page) -> Plan:
    wanted = re.findall(r"Select (.*) from the list and click Submit", goal)[0]
    return (f"select {page.role('combobox')} {wanted}", f"click {page.find('Submit')}")


def _sequence(goal: str, page: Page) -> Plan:
    return (f"click {page.find('ONE')}", f"click {page.find('TWO')}")


def _dialog(goal: str, page: Page) -> Plan:
    wanted = quoted(goal)[0]
    return (f"click {page.find('Close' if wanted == 'x' else wanted, 'button')}",)


def _arithmetic(goal: str, page: Page) -> Plan:
    first, sign, second = re.findall(r"(\d) ([-+x]) (\d) =", page.shown)[0]
    one, two = int(first), int(second)
    answer = {"+": one + two, "-": one - two, "x": one * two}[sign]
    return _submit(page, str(answer))


def _table(goal: str, page: Page) -> Plan:
    key = re.findall(r"the value of (.*) into the text", goal)[0]
    cells = [each["name"] for each in page.elements if each["role"] == "cell"]
    return _submit(page, cells[cells.index(key) + 1])


def _word(goal: str, page: Page) -> Plan:
    nth = int(re.findall(r"the (\d+)(?:st|nd|rd|th) word", goal)[0])
    text = page.name("p")
    return _submit(page, re.sub(r"[^a-zA-Z0-9]", "", text.split()[nth - 1]))


def _case(goal: str, page: Page) -> Plan:
    word = quoted(goal)[0]
    return _submit(page, word.upper() if "upper case" in goal else word.lower())


def _tab(goal: str, page: Page) -> Plan:
    return (f"click {page.find(re.findall(r'Tab #.', goal)[0])}",)


def _colour(goal: str, page: Page) -> Plan:
    wanted = re.findall(r"Click on the (\w+) colored box", goal)[0]
    # The task may show a box of the colour, before all others.
    boxes = re.findall(rf"\[(\d+)\] div {wanted} at", page.shown)
    return (f"click {boxes[-1]}",)


def _odd_or_even(goal: str, page: Page) -> Plan:
    rows = [n for n, each in enumerate(page.elements) if re.fullmatch(r"-?\d+", each["name"])]
    # Odd stands before the number, Even after it.
    clicks = (page.elements[n - 1 if int(page.elements[n]["name"]) % 2 else n + 1] for n in rows)
    return (*(f"click {each['number']}" for each in clicks), f"click {page.find('Submit')}")


def _grid(goal: str, page: Page) -> Plan:
    found = re.findall(r"\[(\d+)\] circle \w+ at (\d+),(\d+)", page.shown)
    columns, rows = (sorted({int(each[axis]) for each in found}) for axis in (1, 2))
    x, y = map(int, re.findall(r"\((-?\d),(-?\d)\)", goal)[0])
    places = {(int(left), int(top)): number for number, left, top in found}
    at = columns[2 + x], rows[2 - y]
    return (f"click {places[at]}",)


ORACLES: dict[str, Callable[[str, Page], Plan]] = {
    "choose-list": _list,
    "click-button": _click_named,
    "click-button-sequence": _sequence,
    "click-checkboxes": _checkboxes,
    "click-checkboxes-large": _checkboxes,
    "click-checkboxes-transfer": _checkboxes,
    "click-color": _colour,
    "click-dialog": _dialog,
    "click-dialog-2": _dialog,
    "click-link": _link,
    "click-option": _option,
    "click-tab": _tab,
    "click-test": _test,
    "click-test-2": _test_two,
    "click-test-transfer": _test_two,
    "enter-password": _password,
    "enter-text": _enter,
    "enter-text-2": _case,
    "enter-text-dynamic": _enter,
    "find-word": _word,
    "focus-text": _focus,
    "focus-text-2": _focus_nth,
    "grid-coordinate": _grid,
    "login-user": _login,
    "odd-or-even": _odd_or_even,
    "read-table": _table,
    "simple-arithmetic": _arithmetic,
    "unicode-test": _click_named,
}
"""Page -> what solves it."""
