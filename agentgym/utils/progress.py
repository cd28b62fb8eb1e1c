"""Progress of long work: a live table on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

NARROW = 64
"""Characters of a terminal below which the bar has no room beside the numbers."""


class Fact(NamedTuple):
    """An intermediate result, such as the success so far."""

    name: str
    value: str
    trend: Sequence[float] = ()
    """The latest values, oldest first; drawn as a line of blocks on a terminal."""


class Advance(Protocol):
    """Callback for progress."""

    def __call__(self, done: int, *facts: Fact) -> None:
        """Report ``done`` finished units of the total, with intermediate results."""


_ASCII = str.maketrans({**dict.fromkeys("│┃", "|"), **dict.fromkeys("─━", "-")}) | str.maketrans(
    dict.fromkeys("┏┓┗┛┡┩├┤┌┐└┘┼╇╈┴┬┳┻┷┯", "+")
)
"""Box-drawing characters for terminals that show ASCII only."""


class Display:
    """Shows the stages of a job on a console.

    Args:
        console: Where; None shows nothing at all.
        every: Seconds between lines when the output is not a terminal.
        quiet: Only results and warnings, no progress.
    """

    def __init__(
        self, console: Console | None = None, *, every: float = 15.0, quiet: bool = False
    ) -> None:
        self.console, self.every, self.quiet = console, every, quiet

    def say(self, text: object = "") -> None:
        """Print a line, several lines or a table."""
        if self.console is None:
            return
        if isinstance(text, str) and not _utf(self.console):
            text = text.translate(_ASCII)
        plain = isinstance(text, str)
        self.console.print(text, highlight=False, markup=not plain, soft_wrap=plain)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A stage of ``total`` units; yields the callback that reports its progress."""
        if self.console is None or self.quiet:
            yield lambda done, *facts: None
        elif self.console.is_terminal and not self.console.is_dumb_terminal:
            with _Live(*_columns(self.console.width), console=self.console) as live:
                task = live.add_task(title, total=total, facts=())
                yield lambda done, *facts: live.update(task, completed=done, facts=facts)
        else:
            yield _Lines(self, title, total)


class _Live(Progress):
    """Bar, count and ETA on one line, and the facts in a table below it."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if facts := task.fields["facts"]:
                yield _table(facts, self.console)


def _columns(width: int) -> list[ProgressColumn]:
    short = [TextColumn("{task.description}"), MofNCompleteColumn()]
    clock = [TextColumn("eta"), TimeRemainingColumn(compact=True)]
    if width < NARROW:
        return [*short, *clock]
    named = TextColumn("{task.description:<18}")
    return [named, BarColumn(bar_width=18), MofNCompleteColumn(), TimeElapsedColumn(), *clock]


def _table(facts: Sequence[Fact], console: Console) -> Table:
    """A row per fact; the trends fill what is left of the line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="cyan", no_wrap=True, overflow="crop")
    room = max(0, min(40, console.width - 30))
    for fact in facts:
        line = sparkline(fact.trend[-room:] if room else (), utf=_utf(console))
        table.add_row(f"  {fact.name}", fact.value, Text(line))
    return table


def sparkline(values: Sequence[float], *, utf: bool = True) -> str:
    """One character per value, higher for larger ones, from the smallest to the largest.

    Examples:
        >>> sparkline([0.0, 0.5, 1.0])
        '▁▅█'
        >>> sparkline([0.0, 0.5, 1.0], utf=False)
        '_=#'
    """
    levels = "▁▂▃▄▅▆▇█" if utf else "_.-~=+*#"
    if not values:
        return ""
    low, high = min(values), max(values)
    span = high - low or 1.0
    last = len(levels) - 1
    return "".join(levels[int((value - low) / span * last + 0.5)] for value in values)


class _Lines:
    """Progress as lines of a log."""

    def __init__(self, display: Display, title: str, total: int) -> None:
        self.display, self.title, self.total = display, title, total
        self.start = self.last_line = time.monotonic()
        self.first: int | None = None
        """Units that were finished before the stage began, in a resumed run."""

    def __call__(self, done: int, *facts: Fact) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1
        if done < self.total and now - self.last_line < self.display.every:
            return
        self.last_line = now
        elapsed = now - self.start
        eta = elapsed / max(1, done - self.first) * (self.total - done)
        note = " ".join(f"{fact.name} {fact.value}" for fact in facts)
        self.display.say(
            f"{self.title:<22} {done}/{self.total}  {_clock(elapsed)} eta {_clock(eta)}  {note}"
        )


def _utf(console: Console) -> bool:
    return console.encoding.startswith("utf")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
