"""Progress of long work: bars with an ETA on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Advance(Protocol):
    """Called as work proceeds."""

    def __call__(self, done: int, note: str = "") -> None:
        """``done`` units of the total are finished; ``note`` says how it goes."""


class Display:
    """Shows stages of work on a console, or nowhere when ``console`` is None."""

    def __init__(self, console: Console | None = None, *, every: float = 15.0) -> None:
        self.console = console
        self.every = every
        """Seconds between lines where there is no terminal."""

    def say(self, text: object = "") -> None:
        """One line, or a table."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=isinstance(text, str))

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Advance]:
        """A piece of work of known size."""
        if self.console is None:
            yield lambda done, note="": None
        elif self.console.is_terminal:
            with self._bar(title, total) as advance:
                yield advance
        else:
            yield _Lines(self, title, total)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=total, note="")
            yield lambda done, note="": progress.update(task, completed=done, note=note)


class _Lines:
    def __init__(self, display: Display, title: str, total: int) -> None:
        self.display, self.title, self.total = display, title, total
        self.began = self.said = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done - 1
        if done < self.total and now - self.said < self.display.every:
            return
        self.said = now
        spent = now - self.began
        eta = spent / max(1, done - self.first) * (self.total - done)
        self.display.say(
            f"{self.title:<22} {done}/{self.total}  {_clock(spent)} eta {_clock(eta)}  {note}"
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
