"""Checks that long use and many constructions leak neither memory nor files."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from agentgym.env.base import TextEnv
from agentgym.testing.budget import Stopwatch
from agentgym.testing.findings import Skipped
from agentgym.testing.harness import Harness

_READINGS = 10
"""Memory is read this often; during the first half caches may fill."""
_LEAST = (0.03, 250), (0.06, 90)
"""Seconds for a reset and a few steps, below which there are so many resets whatever the budget: a
leak of 300 bytes each shows from 200 on."""
_PYTHON = 64
"""Bytes per reset of Python's own memory that count as a leak."""
_RESIDENT = 16_384
"""Bytes per reset of the whole process that count as a leak; smaller ones drown in noise."""
_NOISE, _EARLY_NOISE = 8_192, 32_768
"""Bytes by which memory may grow in all, whatever that is per reset; and over few resets, when
caches are still filling."""
_RESETS = 16
"""Resets between the readings from which the memory of the whole process is judged: libraries and
their threads take memory now and then, which in a few resets looks like a leak. With fewer, more
noise is allowed in Python's own memory."""
_AGAIN = 1, 3
"""Memory that grows is read again over so many times the resets: pools of small objects, which the
interpreter and libraries reuse, fill up within some hundred resets, and a leak goes on."""
_TIMED, _TIMING = 5, 0.5
"""A reset is timed so often, or until so many seconds are over."""
_DIPS_FROM = 4
"""With no more readings, each must be higher than the one before."""
_MADE = 20
"""Environments that are made, played and closed."""
_PLAYED = 3
"""Steps after a reset where only memory or files are looked at."""


class Reading(NamedTuple):
    """Memory in use after so many resets, in bytes."""

    resets: int
    python: int
    resident: int


def resets_leak_no_memory(harness: Harness) -> str:
    """Memory stays level over many resets, each with another seed."""
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        return stays_level(harness, harness.make(), _memory_here)
    finally:
        if not tracing:
            tracemalloc.stop()


def stays_level(
    harness: Harness, env: TextEnv, memory: Callable[[], tuple[int, int]], *, dips: int = 0
) -> str:
    """Reset an environment many times; memory must not grow.

    Args:
        harness: Of the environment.
        env: The environment to reset.
        memory: Bytes in use by Python, and by the whole process in which the environment runs.
        dips: Readings that may be lower than the one before, though memory grows: a server
            also frees what belongs to sessions that have ended.
    """
    walks = harness.recorded()[:3]
    resets = 0

    def play(count: int) -> float:
        nonlocal resets
        watch = Stopwatch()
        for _ in range(count):
            walk = walks[resets % len(walks)]
            env.reset(seed=resets, options={"task": walk.task})
            for action in walk.actions[:_PLAYED]:
                if env.step(action)[2]:
                    break
            resets += 1
        return watch.read() / count

    def read(block: int) -> list[Reading]:
        readings = []
        for _ in range(_READINGS):
            play(block)
            readings.append(Reading(resets, *memory()))
        return readings[_READINGS // 2 :]

    memory()  # Watching makes an environment slower.
    play(len(walks))  # What is made once takes its time now.
    block = _block(harness, _fastest(partial(play, len(walks))), len(walks))
    for times in _AGAIN:
        readings = read(times * block)
        if not (grown := _complaint(readings, dips)):
            break
    harness.tried(resets, harness.effort.resets, "resets")
    harness.require(not grown, grown)
    few = "; too few to see a leak outside of Python's own memory" if _few(readings) else ""
    return f"{resets} resets{few}"


def _fastest(play: Callable[[], float]) -> float:
    """Seconds that a call takes on an idle machine: other work only ever makes it slower."""
    watch, times = Stopwatch(), [play()]
    while len(times) < _TIMED and watch.read() < _TIMING:
        times.append(play())
    return min(times)


def _block(harness: Harness, seconds: float, walks: int) -> int:
    """Resets between two readings, in whole rounds: tasks differ in size.

    They are counted, not timed, so that a busy machine sees as much as a quiet one.

    Args:
        harness: Of the environment.
        seconds: What a reset and a few steps take on an idle machine, on average over tasks.
        walks: Tasks that take turns.
    """
    seconds = max(seconds, 1e-6)
    least = next((count for limit, count in _LEAST if seconds < limit), _READINGS)
    wanted = max(least, int(harness.budget.share / seconds))
    return max(1, round(min(wanted, harness.effort.resets) / _READINGS / walks)) * walks


def _complaint(readings: list[Reading], dips: int) -> str:
    """What grows, and what to look for; empty if nothing does."""
    few, resets = _few(readings), readings[-1].resets
    dips = dips if len(readings) > _DIPS_FROM else 0
    noise = _EARLY_NOISE if few else _NOISE
    python = _growth([(r.resets, r.python) for r in readings], dips, noise)
    if python > _PYTHON:
        return (
            f"Python's memory grew by {python:.0f} bytes per reset over {resets} resets: look "
            f"for lists, dictionaries and caches that `start` does not clear"
        )
    resident = _growth([(r.resets, r.resident) for r in readings], dips, _NOISE)
    if not few and resident > _RESIDENT:
        return (
            f"the process grew by {resident / 1024:.0f} KiB per reset over {resets} resets, "
            f"outside of Python's own memory: free what `start` loads into a library"
        )
    return ""


def _few(readings: list[Reading]) -> bool:
    """Whether there are too few resets to judge the memory of the whole process."""
    return readings[-1].resets - readings[0].resets < _RESETS


def _growth(readings: list[tuple[int, int]], dips: int, noise: int) -> float:
    """Bytes per reset; 0 unless memory grew from reading to reading, beyond noise."""
    steps = list(pairwise(readings))
    if not steps or sum(after[1] <= before[1] for before, after in steps) > dips:
        return 0.0
    resets, grown = (last - first for first, last in zip(readings[0], readings[-1], strict=True))
    return grown / resets if grown > noise else 0.0


def files_are_closed(harness: Harness) -> str:
    """close() gives back files, sockets and pipes."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        raise Skipped("this system does not list open files in /proc")
    return gives_back_files(harness, folder)


def gives_back_files(harness: Harness, folder: Path, patience: float = 0.0) -> str:
    """Make, play and close environments; the files open in their process must not grow.

    Args:
        harness: Of the environment.
        folder: ``/proc/N/fd`` of the process in which environments run.
        patience: Seconds that a server may take to notice that a session has ended.
    """
    late, task = harness.hurry(), harness.few(harness.make(), 1)[0]
    harness.close()
    _use(harness, task)
    time.sleep(patience)
    before, made = len(os.listdir(folder)), 0
    while made < _MADE and not (late() and made >= 3):
        _use(harness, task)
        made += 1
    harness.tried(made, _MADE, "environments")
    gc.collect()
    time.sleep(patience)
    more = len(os.listdir(folder)) - before
    harness.require(
        more < made,
        f"{made} environments that were made, played and closed left {more} files or sockets open: "
        f"give them back in `close`",
    )
    return f"{made} environments"


def _use(harness: Harness, task: str) -> None:
    env = harness.make()
    harness.walk(env, task, 0, _PLAYED)
    harness.close()


def _memory_here() -> tuple[int, int]:
    gc.collect()
    return tracemalloc.get_traced_memory()[0], resident(Path("/proc/self"))


def resident(process: Path) -> int:
    """Bytes of a process in memory, by its folder in ``/proc``; 0 where that is not readable."""
    try:
        pages = int((process / "statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
