"""What the TextWorld world costs over the library it wraps: steps, admissible commands, forks.

    scripts/bench textworld

Each pair of lines plays the same commands, the library asked for the same information, in
interleaved repetitions; the ratio is of the medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import textworld

from agentgym.registry import world
from agentgym_envs.textworld import games

TASKS = (
    "cooking-r1t1o1k1c1g1-s0",
    "cooking-r2t2o1k1c1g6-s1203",
    "coin_collector-l7-s5",
    "treasure_hunter-l12-s9",
    "simple-dense-detailed-s3",
)
ENV = "agentgym/TextWorld-v0"
REPETITIONS = 15


def commands(task: str) -> list[str]:
    """Everything an agent may do on the way to winning, some of it useless."""
    env = world(ENV)
    env.reset(options={"task": task})
    plan = env.oracle() or ()
    env.close()
    return [line for step in plan for line in ("look", "inventory", "xyzzy", step)]


def raw(task: str, lines: list[str], infos: textworld.EnvInfos) -> Callable[[], float]:
    """Seconds a step takes in the library."""
    env = textworld.start(str(games.ensure(task)), infos)

    def run() -> float:
        env.reset()
        start = time.perf_counter()
        for line in lines:
            env.step(line)
        return (time.perf_counter() - start) / len(lines)

    return run


def ours(task: str, lines: list[str], **kwargs: object) -> Callable[[], float]:
    """Seconds a step takes in the world."""
    env = world(ENV, **kwargs)

    def run() -> float:
        env.reset(options={"task": task})
        start = time.perf_counter()
        for line in lines:
            env.step(line)
        return (time.perf_counter() - start) / len(lines)

    return run


def compare(task: str) -> None:
    """Print one block for a task."""
    lines = commands(task)
    base = {"feedback": True, "score": True, "won": True, "lost": True, "max_score": True}
    runs = {
        "library, last action": raw(task, lines, textworld.EnvInfos(last_action=True, **base)),
        "world, full": ours(task, lines, observation="full"),
        "library, facts": raw(task, lines, textworld.EnvInfos(facts=True, **base)),
        "world, terse": ours(task, lines, observation="terse"),
        "library, facts, admissible": raw(
            task, lines, textworld.EnvInfos(facts=True, admissible_commands=True, **base)
        ),
        "world, terse, admissible": ours(task, lines, admissible=True),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPETITIONS):
        for name, run in runs.items():
            times[name].append(run())
    print(task)
    before = 0.0
    for name, values in times.items():
        step = median(values)
        ratio = f"{step / before:6.2f} x the library" if name.startswith("world") else ""
        print(f"  {name:28} {step * 1e3:7.3f} ms  {1 / step:6.0f} /s  {ratio}")
        before = step


def fork(task: str) -> None:
    """Print what branching and starting cost."""
    env = world(ENV)
    env.reset(options={"task": task})
    for line in commands(task)[:12]:
        env.step(line)
    forks, starts, oracles = [], [], []
    for _ in range(30):
        start = time.perf_counter()
        other = env.fork()
        forks.append(time.perf_counter() - start)
        other.close()
    kept = []
    cold = []
    for _ in range(8):
        start = time.perf_counter()
        kept.append(env.fork())
        cold.append(time.perf_counter() - start)
    for _ in range(10):
        start = time.perf_counter()
        env.reset(options={"task": task})
        starts.append(time.perf_counter() - start)
        env.step(commands(task)[3])
        start = time.perf_counter()
        env.oracle()
        oracles.append(time.perf_counter() - start)
    print(
        f"{task}: fork {median(forks) * 1e3:.2f} ms with an idle interpreter, "
        f"{median(cold) * 1e3:.2f} ms without; reset {median(starts) * 1e3:.2f} ms; "
        f"first oracle {median(oracles) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    for name in TASKS:
        compare(name)
    for name in TASKS:
        fork(name)
