"""Tables of results, as plain text and as HTML for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from io import StringIO

from rich import box
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table with a title above and notes below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rule_after: int = -1
    """Row after which a rule is drawn; -1 for none."""
    notes: tuple[str, ...] = ()

    def text(self, width: int = 80) -> str:
        """Plain text, wrapped to ``width`` characters."""
        console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
        # Without frames, three intervals fit 80 columns.
        table = Table(
            title=escape_markup(self.title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for number, name in enumerate(self.columns):
            table.add_column(escape_markup(name), justify="right" if number else "left")
        for number, row in enumerate(self.rows):
            table.add_row(*map(escape_markup, row), end_section=number == self.rule_after)
        with console.capture() as capture:
            console.print(table)
            for note in self.notes:
                console.print(note, highlight=False, markup=False)
        return capture.get()

    def html(self) -> str:
        """An HTML table; every text in it is escaped."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return (
            f"<table><caption>{escape(self.title)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>{notes}"
        )
