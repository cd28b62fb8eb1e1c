"""Stopping a call into an environment that does not return, in the process of the checker.

A timer interrupts the main thread and looks for the call that is under way. If it is still the
same call after the timeout, an exception is raised inside it. Python code, waiting and regular
expressions can be stopped that way; a call that hangs inside a C extension cannot.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_TICK = 0.5
"""Seconds between two looks."""
_HERE = str(Path(__file__).parent)
_WAITING = ("subprocess", "threading")
"""Modules that the checker itself waits in, with timeouts of their own."""


class Hangs(BaseException):
    """A call did not return; no ``Exception``, so that no environment catches it."""

    def __init__(self, call: str, place: str, seconds: float) -> None:
        super().__init__(f"{call}() did not return within {seconds:g} s; it was at {place}")
        self.place = place


@contextmanager
def calls_return_within(seconds: float) -> Iterator[None]:
    """Raise ``Hangs`` inside a call of the checker that takes longer.

    Without effect outside the main thread, and on systems without ``SIGALRM``. A timer that was
    set before continues afterwards.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return
    watch = _Watch(seconds)
    before = signal.signal(signal.SIGALRM, watch)
    left, _ = signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    watch.outer, watch.outer_end = before, watch.started + left if left else 0.0
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            rest = max(0.01, watch.outer_end - time.monotonic())
            signal.setitimer(signal.ITIMER_REAL, rest)


class _Watch:
    """The handler of the timer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = time.monotonic()
        self.outer: object = None
        """The handler before ours, and when its timer ends; 0 without one."""
        self.outer_end = 0.0
        self._call: FrameType | None = None
        self._since = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.outer_end and now > self.outer_end and callable(self.outer):
            self.outer_end = 0.0
            self.outer(number, frame)
        call = _call_under_way(frame)
        if call is None or call is not self._call:
            self._call, self._since = call, now
        elif now - self._since > self.seconds:
            assert frame is not None
            self._call = None
            place = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"
            raise Hangs(call.f_code.co_name, place, self.seconds)


def _call_under_way(frame: FrameType | None) -> FrameType | None:
    """The outermost frame of what the checker called; None while the checker itself runs."""
    called: FrameType | None = None
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        called, frame = frame, frame.f_back
    if frame is None or called is None:
        return None
    return None if called.f_globals.get("__name__") in _WAITING else called
