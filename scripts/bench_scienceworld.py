"""Memory of the Java process of ScienceWorld, and the time to find gold actions.

    scripts/bench scienceworld [RESETS]

RESETS (default 1,000) tasks are started, played for a few steps and forked in one process; the
memory of its Java process is printed meanwhile. Times of steps, resets and forks are in
`scripts/bench worlds`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from agentgym.env.registry import world
from agentgym_envs.scienceworld.simulator import SIMULATORS

ENV = "agentgym/ScienceWorld-v0"


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of wall clock."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def oracle() -> None:
    """Print the time of the first search for gold actions of a task."""
    env = world(ENV)
    for name in ("find-plant", "boil", "mendelian-genetics-known-plant"):
        env.reset(options={"task": f"{name}-easy-v1"})
        print(f"oracle of {name}-easy-v1: {timed(env.oracle):.0f} ms")
    env.close()


def held(count: int) -> None:
    """Print the memory of the Java process as environments are started and kept."""
    SIMULATORS.shut_down()
    kept = [world(ENV) for _ in range(count)]
    for number, env in enumerate(kept, 1):
        env.reset(seed=number)
        if number in (1, count // 2, count):
            print(f"{number} environments in progress: {SIMULATORS.jvm.resident_mb:.0f} MiB")  # type: ignore[union-attr]
    for env in kept:
        env.close()


def leak(resets: int) -> None:
    """Print the memory of the Java process over many short episodes."""
    SIMULATORS.shut_down()
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
            mib = SIMULATORS.jvm.resident_mb  # type: ignore[union-attr]
            print(f"{number} resets: {mib:.0f} MiB, {took:.0f} s", flush=True)
    env.close()


if __name__ == "__main__":
    oracle()
    held(64)
    leak(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    SIMULATORS.shut_down()
