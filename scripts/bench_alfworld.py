"""What ALFWorld costs here and in its own engine: steps, resets, forks.

    .venv/bin/python scripts/bench_alfworld.py

Both engines play the same commands in the same games, in interleaved repetitions; the ratio is of
the medians. Times are seconds of this process on its core, so that other work on the machine hardly
counts. Needs the extra `alfworld-reference`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from agentgym.env import TextEnv
from agentgym.registry import world
from agentgym_envs.alfworld import files, games, problem, tasks
from agentgym_envs.alfworld.reference import Reference

ENV = "agentgym/ALFWorld-v0"
REPETITIONS = 5


def seconds(run: Callable[[], object], times: int = 1) -> float:
    """Seconds that one call takes."""
    start = time.process_time()
    for _ in range(times):
        run()
    return (time.process_time() - start) / times


def lines_of(env: TextEnv) -> list[str]:
    """Everything an agent may do on the way to winning, some of it useless."""
    return [line for step in env.oracle() or () for line in ("look", "inventory", "xyzzy", step)]


def main() -> None:
    """Print one table."""
    ids = [tasks.panel_ids("train", 1, (name,))[0] for name in problem.TASK_TYPES]
    with tempfile.TemporaryDirectory() as folder:
        homes = [files.write(Path(folder), "train", task) for task in ids]
        loads = [seconds(lambda home=home: load(home)) for home in homes]
        rows = [steps(task, load(home)) for task, home in zip(ids, homes, strict=True)]
    theirs, ours, bare = (median(column) for column in zip(*rows, strict=True))
    env = world(ENV)
    resets = [seconds(lambda task=task: begin(env, task)) for task in tasks_of(env)]
    again = seconds(lambda: env.reset(options={"task": ids[0]}), 200)
    forks = seconds(env.fork, 2000)
    print(f"step, admissible commands listed   reference {1 / theirs:9.1f} /s")
    print(f"                                   ours      {1 / ours:9.0f} /s = {theirs / ours:.0f}x")
    print(f"step, commands not listed          ours      {1 / bare:9.0f} /s")
    print(f"load and reset of a new game       reference {1e3 * median(loads):9.1f} ms")
    print(f"                                   ours      {1e3 * median(resets):9.1f} ms")
    print(f"reset of a game played before      ours      {1e6 * again:9.0f} us")
    print(f"fork                               ours      {1e6 * forks:9.1f} us")


def tasks_of(env: TextEnv) -> list[str]:
    """Tasks that were not played yet."""
    games.generated.cache_clear()
    return list(env.tasks("train"))[100:160]


def begin(env: TextEnv, task: str) -> None:
    """Start a task."""
    env.reset(options={"task": task})


def load(home: Path) -> Reference:
    """A game in the reference engine, at its start."""
    game = Reference(home / files.GAME)
    game.reset()
    return game


def steps(task: str, reference: Reference) -> tuple[float, float, float]:
    """Seconds a step takes in the reference engine, in ours, and in ours without the list."""
    listing, bare = world(ENV, admissible=True), world(ENV)
    begin(bare, task)
    lines = lines_of(bare)

    def theirs() -> None:
        reference.reset()
        for line in lines:
            reference.step(line)

    def ours(env: TextEnv) -> None:
        begin(env, task)
        for line in lines:
            env.step(line)

    times = [
        (seconds(theirs), seconds(lambda: ours(listing), 20), seconds(lambda: ours(bare), 20))
        for _ in range(REPETITIONS)
    ]
    reset = seconds(reference.reset)
    first, second, third = (median(column) for column in zip(*times, strict=True))
    return (first - reset) / len(lines), second / len(lines), third / len(lines)


if __name__ == "__main__":
    main()
