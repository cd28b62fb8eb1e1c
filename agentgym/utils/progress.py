"""Progress of long work: a bar with an ETA on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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
from rich.text import Text


class Advance(Protocol):
    """Callback for progress."""

    def __call__(self, done: int, note: str = "") -> None:
        """Report ``done`` finished units of the total, with a note on intermediate results."""


_ASCII = str.maketrans({**dict.fromkeys("│┃", "|"), **dict.fromkeys("─━", "-")}) | str.maketrans(
    dict.fromkeys("┏┓┗┛┡┩├┤┌┐└┘┼╇╈┴┬┳┻┷┯", "+")
)
"""Box-drawing characters for terminals that show ASCII only."""


class Display:
    """Shows the stages of a job on a console; silent when ``console`` is None."""

    def __init__(self, console: Console | None = None, *, every: float = 15.0) -> None:
        self.console = console
        self.every = every
        """Seconds between lines when the output is not a terminal."""

    def say(self, text: object = "") -> None:
        """Print a line, several lines or a table."""
        if self.console is None:
            return
        if isinstance(text, str) and not self.console.encoding.startswith("utf"):
            text = text.translate(_ASCII)
        plain = isinstance(text, str)
        self.console.print(text, highlight=False, markup=not plain, soft_wrap=plain)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A stage of ``total`` units; yields the callback that reports its progress."""
        if self.console is None:
            yield lambda done, note="": None
        elif self.console.is_terminal:
            with self._bar(title, total) as advance:
                yield advance
        else:
            yield _Lines(self, title, total)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Advance]:
        with _Bar(console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note="": progress.update(task, completed=done, note=note)


class _Bar(Progress):
    """Bar, count and ETA on one line, which fits 80 columns, and the note below it."""

    @classmethod
    def get_default_columns(cls) -> tuple[ProgressColumn, ...]:
        return (
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if note := task.fields["note"]:
                yield Text(f"  {note}", style="dim", no_wrap=True, overflow="ellipsis")


class _Lines:
    """Progress as lines of a log."""

    def __init__(self, display: Display, title: str, total: int) -> None:
        self.display, self.title, self.total = display, title, total
        self.start = self.last_line = time.monotonic()
        self.first: int | None = None
        """Units that were finished before the stage began, in a resumed run."""

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1
        if done < self.total and now - self.last_line < self.display.every:
            return
        self.last_line = now
        elapsed = now - self.start
        eta = elapsed / max(1, done - self.first) * (self.total - done)
        self.display.say(
            f"{self.title:<22} {done}/{self.total}  {_clock(elapsed)} eta {_clock(eta)}  {note}"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
