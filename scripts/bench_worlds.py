"""What the worlds cost, each beside the library it stands for: steps, resets, forks, memory, pool.

    scripts/bench worlds [--worlds textworld alfworld ...] [--repetitions 7] [--pool]

Library and world play the same lines in the same tasks, in interleaved repetitions: everything the
oracle does, and, where the library takes text, `look`, `inventory` and nonsense in between. Figures
are medians, `times` is the ratio of the medians. Times are CPU seconds of this process, so that
other work on the machine hardly counts; those of ScienceWorld include its Java process. Memory is
what this process and its children hold, shared pages by their share; a world is one under way, a
fork one of the middle of an episode. A library that is not installed has no figures (ALFWorld's is
the extra `alfworld-reference`), WebShop's cannot be installed beside a current Python, the others
are worlds of our own. `--pool` adds `scripts/bench pool`.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import bench_pool
import tyro
from bench_packages import LIBRARIES, PAGES, Player, lines_of
from memory import megabytes
from rich.console import Console
from rich.table import Table

from agentgym.env.base import TextEnv
from agentgym.env.registry import environments, full_id, world
from agentgym.errors import AgentGymError, MissingExtra

SHORTEST = 0.1
"""Seconds that one side plays before it is the other's turn: an episode of 0.3 ms, alone between
two of the other side, finds nothing of its own in the processor's caches."""
MEMORY = 32
"""Worlds, and forks, that are held at once to see what one takes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured."""

    worlds: tuple[str, ...] = ()
    """Ids or short names; every world unless given."""
    repetitions: int = 7
    tasks: int = 3
    """Tasks of a world that are played."""
    pool: bool = False
    """Compare the pool with Gymnasium's AsyncVectorEnv, too."""


OUTSIDE = ("agentgym/MiniWoB-v0", "agentgym/ScienceWorld-v0")
"""Worlds that do their work in another process."""


class Speed(NamedTuple):
    """Seconds: of a step, and of a start."""

    step: float
    begin: float


def playable(name: str, task: str) -> bool:
    """Whether the library can play what the oracle does."""
    return name != "agentgym/MiniWoB-v0" or task.rpartition("-")[0] in PAGES


def ours(env: TextEnv, task: str) -> Player:
    """A world."""
    return Player(lambda: env.reset(seed=0, options={"task": task}), env.step, env.close)


def play(player: Player, lines: Sequence[str], clock: Callable[[], float]) -> Speed:
    """Episodes, one after the other, until they took long enough to be timed."""
    start, begins, steps, episodes = clock(), 0.0, 0.0, 0
    while episodes == 0 or clock() - start < SHORTEST:
        before = clock()
        player.begin()
        began = clock()
        for line in lines:
            player.step(line)
        begins, steps, episodes = begins + began - before, steps + clock() - began, episodes + 1
    return Speed(steps / episodes / len(lines), begins / episodes)


def speeds(name: str, task: str, *, listing: bool, times: int) -> list[list[Speed]]:
    """Episodes of the world, and of its library where there is one, by turns."""
    clock = cpu_seconds if name in OUTSIDE else time.process_time
    lines = lines_of(name, task)
    players = [ours(world(name, admissible=listing), task)]
    if name in LIBRARIES:
        with suppress(MissingExtra):
            players.append(LIBRARIES[name](task, listing))
    found: list[list[Speed]] = [[] for _ in players]
    for player in players:
        player.begin()  # What is read or started once is no part of it.
    for _ in range(times):
        for player, taken in zip(players, found, strict=True):
            taken.append(play(player, lines, clock))
    for player in players:
        player.close()
    return found


def cpu_seconds() -> float:
    """CPU time of this process, its children, and those of them that ended, in steps of 10 ms."""
    ticks = 0
    for pid in _children(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def held() -> int:
    """Bytes that this process and its children hold."""
    gc.collect()
    here = os.getpid()
    return int(sum(megabytes(pid) for pid in (here, *_children(here))) * 2**20)


def _children(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *_children(child)]
    return found


class Copies(NamedTuple):
    """What holding many costs."""

    fork: float
    """Seconds."""
    fork_bytes: float
    world_bytes: float


def copies(name: str, task: str) -> Copies:
    """Fork a world in the middle of an episode; begin many more."""
    clock = cpu_seconds if name in OUTSIDE else time.process_time
    env = world(name)
    env.reset(seed=0, options={"task": task})
    lines = lines_of(name, task)
    for line in lines[: len(lines) // 2]:
        env.step(line)
    kept, taken = [env.fork()], []
    before = held()
    for _ in range(MEMORY):
        start = clock()
        kept.append(env.fork())
        taken.append(clock() - start)
    forks = (held() - before) / MEMORY
    before = held()
    for number in range(MEMORY):
        kept.append(world(name))
        kept[-1].reset(seed=number, options={"task": task})
    worlds = (held() - before) / MEMORY
    for one in (env, *kept):
        one.close()
    return Copies(median(taken), forks, worlds)


HEAD = ("world", "library /s", "ours /s", "times", "reset", "fork", "of a fork", "of a world")


def rows(name: str, options: Options) -> list[tuple[str, ...]]:
    """The lines of a world: without, and with, the list of admissible actions."""
    env = world(name)
    tasks = [each for each in env.tasks("test") if playable(name, each)][: options.tasks]
    env.prepare(tasks)
    env.close()
    shared = copies(name, tasks[0])
    found = []
    for listing in (False, True):
        played = [speeds(name, task, listing=listing, times=options.repetitions) for task in tasks]
        sides = [[speed for one in side for speed in one] for side in zip(*played, strict=True)]
        step = [median(speed.step for speed in side) for side in sides]
        library = ("not installed" if name in LIBRARIES else "", "")
        if step[1:]:
            library = (f"{1 / step[1]:,.1f}", f"{step[1] / step[0]:,.2f}")
        begin = median(speed.begin for speed in sides[0])
        memory = () if listing else (short(shared.fork), size(shared.fork_bytes))
        found.append(
            (
                f"{name}{', actions listed' if listing else ''}",
                library[0],
                f"{1 / step[0]:,.0f}",
                library[1],
                short(begin),
                *(memory or ("", "")),
                "" if listing else size(shared.world_bytes),
            )
        )
    return found  # type: ignore[return-value]


def short(seconds: float) -> str:
    """A time to read."""
    return f"{seconds * 1e3:,.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:,.1f} us"


def size(count: float) -> str:
    """Bytes to read."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"


def main(options: Options) -> None:
    """One table."""
    console, table = Console(width=120), Table(*HEAD)
    for name in [full_id(word) for word in options.worlds] or environments():
        try:
            found = rows(name, options)
        except AgentGymError as problem:
            print(f"left out: {problem}", flush=True)
            continue
        for row in found:
            table.add_row(*row)
    console.print(table)
    if options.pool:
        bench_pool.main(bench_pool.Options())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
