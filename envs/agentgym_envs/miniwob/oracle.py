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


def _enter(goal: str, page: Page) -> Plan:
    return (f"type {page.role('textbox')} {quoted(goal)[0]}", f"click {page.find('Submit')}")


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


ORACLES: dict[str, Callable[[str, Page], Plan]] = {
    "choose-list": _list,
    "click-button": _click_named,
    "click-button-sequence": _sequence,
    "click-checkboxes": _checkboxes,
    "click-checkboxes-large": _checkboxes,
    "click-checkboxes-transfer": _checkboxes,
    "click-link": _link,
    "click-option": _option,
    "click-test": _test,
    "click-test-2": _test_two,
    "click-test-transfer": _test_two,
    "enter-password": _password,
    "enter-text": _enter,
    "enter-text-dynamic": _enter,
    "focus-text": _focus,
    "focus-text-2": _focus_nth,
    "login-user": _login,
}
"""Page -> what solves it."""
