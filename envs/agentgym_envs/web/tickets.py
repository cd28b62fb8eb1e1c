"""A ticket desk with a database: an example of a site with state, to be copied."""

from __future__ import annotations

import re
import sqlite3
from html import escape
from typing import Any

import numpy as np

from agentgym.browser import Tab
from agentgym.browser.env import Verdict
from agentgym_envs.web.site import Goal, Site, document

SPLITS = {"train": range(2000), "valid": range(2000, 2200), "test": range(2200, 2456)}
TOPICS = ("printer", "laptop", "password", "badge", "projector", "phone", "monitor", "heating")
PEOPLE = ("Ada", "Boris", "Chen", "Dina", "Emil", "Farah", "Grace", "Hugo")
STATES = ("open", "waiting", "closed")
KINDS = ("close", "assign", "comment", "new")


class Tickets(Site):
    """Close, assign, comment and open tickets; the database decides."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.kind = ""
        self.wanted: dict[str, Any] = {}
        self.untouched: list[Any] = []

    def tasks(self, split: str) -> tuple[str, ...]:
        """Kinds take turns."""
        return tuple(f"{KINDS[n % len(KINDS)]}-{n}" for n in SPLITS[split])

    def begin(self, task: str, rng: np.random.Generator) -> Goal:
        """Fill the desk with tickets; the task alone decides which."""
        kind, _, number = task.rpartition("-")
        known = number.isdecimal() and number.isascii() and int(number) < 2456
        if not known or task != f"{KINDS[int(number) % len(KINDS)]}-{int(number)}":
            raise LookupError(task)
        draw = np.random.default_rng(int(number))
        self.db.executescript(
            "drop table if exists tickets; create table tickets (id integer primary key, "
            "title text, owner text, state text, comment text)"
        )
        owners = draw.permutation(len(PEOPLE))
        topics = draw.permutation(len(TOPICS))
        for place in range(6):
            title = f"{TOPICS[topics[place]]} of {PEOPLE[owners[place]]}"
            self.db.execute(
                "insert into tickets (title, owner, state, comment) values (?, ?, ?, '')",
                (title, PEOPLE[int(draw.integers(len(PEOPLE)))], "open"),
            )
        chosen = int(draw.integers(1, 7))
        query = "select title, owner from tickets where id = ?"
        title, owner = self.db.execute(query, [chosen]).fetchone()
        others = [each for each in PEOPLE if each != owner]
        person = others[int(draw.integers(len(others)))]
        self.kind, self.wanted = kind, {"id": chosen, "text": person}
        texts = {
            "close": f"Close the ticket about the {title}.",
            "assign": f"Assign the ticket about the {title} to {person}.",
            "comment": f'Add the comment "seen by {person}" to the ticket about the {title}.',
            "new": f'Open a new ticket with the title "{TOPICS[topics[7]]} of {person}".',
        }
        self.wanted |= {"title": f"{TOPICS[topics[7]]} of {person}", "about": title}
        self.untouched = self._rows()
        return Goal(texts[kind], kind)

    def page(self, path: str, form: dict[str, str] | None) -> str | None:
        """The list of tickets, one ticket, or the form of a new one."""
        found = re.fullmatch(r"/ticket/(\d{1,9})", path)
        if form is not None:
            self._change(int(found[1]) if found else None, form)
            return None
        if found:
            return self._ticket(int(found[1]))
        rows = "".join(
            f"<tr><td><a href='/ticket/{number}'>{escape(title)}</a></td><td>{owner}</td>"
            f"<td>{state}</td></tr>"
            for number, title, owner, state, _ in self._rows()
        )
        return document(
            "Tickets",
            f"<h1>Tickets</h1><table><tr><th>Title</th><th>Owner</th><th>State</th></tr>{rows}"
            "</table><form method=post><label>New ticket <input name=title></label>"
            "<button>Open</button></form>",
        )

    def check(self, tab: Tab) -> Verdict:
        """Solved when the database holds what was asked for and nothing else has changed."""
        rows, wanted = self._rows(), self.wanted
        expected = [list(row) for row in self.untouched]
        target = expected[wanted["id"] - 1]
        if self.kind == "close":
            target[3] = "closed"
        elif self.kind == "assign":
            target[2] = wanted["text"]
        elif self.kind == "comment":
            target[4] = f"seen by {wanted['text']}"
        else:
            expected.append([len(expected) + 1, wanted["title"], "", "open", ""])
        won = [list(row) for row in rows] == expected and rows != self.untouched
        return Verdict(float(won), float(won), won, won)

    def oracle(self) -> tuple[str, ...]:
        """Commands from the list of tickets."""
        person = self.wanted["text"]
        if self.kind == "new":
            return (f'type "New ticket" {self.wanted["title"]}', 'click "Open"')
        steps = {
            "close": ('select "State" closed',),
            "assign": (f'select "Owner" {person}',),
            "comment": (f'type "Comment" seen by {person}',),
        }[self.kind]
        return (f'click "{self.wanted["about"]}"', *steps, 'click "Save"')

    def _ticket(self, number: int) -> str:
        row = next((row for row in self._rows() if row[0] == number), None)
        if row is None:
            return document("Tickets", "<p>There is no such ticket.</p><a href='/'>Tickets</a>")
        _, title, owner, state, comment = row
        return document(
            title,
            f"<a href='/'>Tickets</a><h1>{escape(title)}</h1><form method=post>"
            f"{_choice('Owner', PEOPLE, owner)}{_choice('State', STATES, state)}"
            f'<label>Comment <input name=comment value="{escape(comment, quote=True)}"></label>'
            "<button>Save</button></form>",
        )

    def _change(self, number: int | None, form: dict[str, str]) -> None:
        if number is None:
            self.db.execute(
                "insert into tickets (title, owner, state, comment) values (?, '', 'open', '')",
                [form.get("title", "")],
            )
            return
        self.db.execute(
            "update tickets set owner = ?, state = ?, comment = ? where id = ?",
            [form.get("owner", ""), form.get("state", ""), form.get("comment", ""), number],
        )

    def _rows(self) -> list[Any]:
        return self.db.execute("select * from tickets order by id").fetchall()


def _choice(name: str, options: tuple[str, ...], chosen: str) -> str:
    shown = "".join(
        f"<option{' selected' if each == chosen else ''}>{each}</option>" for each in options
    )
    extra = "" if chosen in options else "<option selected></option>"
    return f"<label>{name} <select name={name.lower()}>{extra}{shown}</select></label>"
