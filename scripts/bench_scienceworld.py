"""What the ScienceWorld world costs over the simulator it wraps, and whether its memory is bounded.

    .venv/bin/python scripts/bench_scienceworld.py [RESETS]

Speeds come from the same lines played in turn by the library's own class and by the world, on
Java machines with the same options; medians. Then RESETS (default 1,000) tasks are begun, played
a little and forked in one process, and the memory of the Java machine is printed on the way.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from statistics import median

from agentgym.registry import world
from agentgym_envs.scienceworld import jvm, tasks
from agentgym_envs.scienceworld.simulator import STAGE

os.environ["JAVA_TOOL_OPTIONS"] = " ".join(jvm.OPTIONS)  # for the library's own machine

from scienceworld import ScienceWorldEnv

ENV = "agentgym/ScienceWorld-v0"
TASKS = ("boil-full-v0", "find-plant-easy-v0", "grow-fruit-easy-v0")
REPETITIONS = 5


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of wall clock."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def speeds(task: str, library: ScienceWorldEnv) -> None:
    """Print what a step, a start and a fork cost."""
    spec = tasks.parse(task)
    plain, listing = world(ENV), world(ENV, admissible=True)
    plain.reset(options={"task": task})
    lines = [step for step in plain.oracle() or () for step in ("look around", step)][:40]
    times: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        times.setdefault(name, []).append(value)

    def library_start() -> None:
        library.load(spec.name, spec.variation, spec.simplifications)
        library.reset()

    for _ in range(REPETITIONS):
        note("library: load and reset", timed(library_start))
        note("library: step", timed(lambda: [library.step(x) for x in lines]) / len(lines))
        for name, env in (("world", plain), ("world, admissible", listing)):
            note(f"{name}: reset", timed(lambda env=env: env.reset(options={"task": task})))
            steps = timed(lambda env=env: [env.step(x) for x in lines])
            note(f"{name}: step", steps / len(lines))
        note(f"fork after {len(lines)} lines", timed(lambda: plain.fork().close()))
    print(task)
    for name, values in sorted(times.items()):
        print(f"  {name:28} {median(values):8.2f} ms  {1e3 / median(values):7.1f} /s")
    plain.close()
    listing.close()


def oracle() -> None:
    """Print what finding the gold actions of a task costs the first time."""
    env = world(ENV)
    for name in ("find-plant", "boil", "mendelian-genetics-known-plant"):
        env.reset(options={"task": f"{name}-easy-v1"})
        print(f"oracle of {name}-easy-v1: {timed(env.oracle):.0f} ms")
    env.close()


def seats(count: int) -> None:
    """Print the memory of the machine as worlds are begun and kept."""
    STAGE.end()
    kept = [world(ENV) for _ in range(count)]
    for number, env in enumerate(kept, 1):
        env.reset(seed=number)
        if number in (1, count // 2, count):
            print(f"{number} worlds in progress: {STAGE.machine.resident_mb:.0f} MiB")  # type: ignore[union-attr]
    for env in kept:
        env.close()


def leak(resets: int) -> None:
    """Print the memory of the machine over many short episodes."""
    STAGE.end()
    env = world(ENV)
    start = time.perf_counter()
    for number in range(1, resets + 1):
        env.reset(seed=number)
        for line in ("look around", "open door", "0", "wait"):
            env.step(line)
        if number % 10 == 0:
            env.fork().close()
        if number % (resets // 10) == 0:
            took = time.perf_counter() - start
            mib = STAGE.machine.resident_mb  # type: ignore[union-attr]
            print(f"{number} resets: {mib:.0f} MiB, {took:.0f} s", flush=True)
    env.close()


if __name__ == "__main__":
    theirs = ScienceWorldEnv()
    for each in TASKS:
        speeds(each, theirs)
    theirs.close()
    oracle()
    seats(64)
    leak(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    STAGE.end()
