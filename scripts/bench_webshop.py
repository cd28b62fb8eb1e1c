"""Costs of WebShop: building, memory of many sessions, steps, searches, forks.

    scripts/bench webshop [--products 100000] [--sessions 128] [--workers 4] [--official 100000]

Times are CPU seconds of this process, so that a busy machine does not change them; memory is what
this process holds (Pss: pages shared with other processes count by their share). With `--workers`
the sessions live in worker processes, and memory is that of all of them and this one together.
`--official N` only writes files of the official schema with N products and loads them as a stream,
in a process of its own, and prints its peak memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from bench_worlds import held
from memory import megabytes

from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory, world
from agentgym.types import Task
from agentgym_envs.webshop.env import WebShop
from agentgym_envs.webshop.synthetic import records

ENV = "agentgym/WebShop-v0"


def seconds(run: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def build(products: int) -> WebShop:
    """The environment; its catalogue is built if this host has none."""
    env = world(ENV, products=products)
    assert isinstance(env, WebShop)
    wall = time.perf_counter()
    spent = seconds(lambda: env.prepare(env.tasks("train")))
    print(f"catalogue of {products:,}: {spent:.1f} s of CPU, {time.perf_counter() - wall:.1f} s")
    print(f"goals: {env.catalogue.goal_count:,}")
    size = sum(file.stat().st_size for file in env.catalogue.folder.iterdir())
    print(f"on disk: {size / 2**20:.0f} MB")
    return env


def query(env: WebShop, rng: random.Random) -> str:
    """Distinct words of an instruction, as a query."""
    words = env.catalogue.goal(rng.randrange(env.catalogue.goal_count)).instruction.split()[2:]
    return " ".join(rng.sample(words, min(len(words), 5)))


def episode(env: WebShop, task: str, rng: random.Random) -> list[str]:
    """One visit of at most 15 turns: a search, then random clicks."""
    env.reset(seed=0, options={"task": task})
    actions = []
    for _ in range(15):
        choices = env.admissible()
        action = rng.choice(choices)
        actions.append(f"search[{query(env, rng)}]" if action.startswith("search") else action)
        if env.step(actions[-1])[2]:
            break
    return actions


def steps(env: WebShop, *, admissible: bool = False, fresh: bool = True) -> float:
    """Steps per CPU second over random visits; ``fresh`` clears the caches first."""
    player = world(ENV, products=env.source.size, admissible=admissible)
    rng = random.Random(1)
    tasks = player.tasks("train")
    chosen = [tasks[number] for number in rng.sample(range(len(tasks)), 400)]
    scripts = [(task, episode(env, task, rng)) for task in chosen]
    if fresh:
        for cached in (env.catalogue.product, env.catalogue.card, env.catalogue.index.search):
            cached.cache_clear()
    done, spent = 0, 0.0
    for task, actions in scripts:
        player.reset(seed=0, options={"task": task})
        start = time.process_time()
        for action in actions:
            player.step(action)
        spent += time.process_time() - start
        done += len(actions)
    return done / spent


def many(env: WebShop, count: int) -> None:
    """Print the memory of ``count`` visits."""
    before = megabytes()
    rng = random.Random(2)
    tasks = env.tasks("train")
    sessions = [world(ENV, products=env.source.size) for _ in range(count)]
    for session in sessions:
        session.reset(seed=0, options={"task": tasks[rng.randrange(len(tasks))]})
        for action in episode(env, session.task_id, rng):
            session.step(action)
    after = megabytes()
    print(f"{count} sessions: {after:.0f} MB in all (Pss), {after - before:.0f} MB added by them")
    print(f"of it private: {megabytes(key='Private_Dirty'):.0f} MB")


async def shared(env: WebShop, count: int, workers: int) -> None:
    """Print the memory of ``count`` visits in worker processes."""
    rng, tasks = random.Random(2), env.tasks("train")
    async with ProcessPool(workers=workers) as pool:
        for _ in range(count):
            task = Task(ENV, tasks[rng.randrange(len(tasks))])
            actions = episode(env, task.id, rng)
            session = await pool.open(EnvFactory(kwargs={"products": env.source.size}), task)
            await session.reset(task)
            for action in actions:
                await session.step(action)
        print(
            f"{count} sessions in {workers} processes: {held() / 2**20:.0f} MB in all processes "
            f"together (Pss)"
        )


def official(products: int) -> None:
    """Write files of the official schema, and load them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["AGENTGYM_CACHE"] = str(folder / "cache")
        with (
            (folder / "items_shuffle.json").open("w") as entries,
            (folder / "items_ins_v2.json").open("w") as known,
        ):
            for row in range(products):
                record, attributes = records(row, 0)
                between = ",\n" if row else ""
                entries.write((between or "[") + json.dumps(record))
                known.write((between or "{") + f'"{record["asin"]}": {json.dumps(attributes)}')
            entries.write("]\n")
            known.write("}\n")
        size = sum(file.stat().st_size for file in folder.glob("*.json"))
        print(f"official files of {products:,} products: {size / 2**20:.0f} MB", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            print(alone.submit(load, name).result())


def load(folder: str) -> str:
    """Time and memory of loading, in a process that does nothing else."""
    before, reports = _peak(), list[tuple[int, int]]()
    env = world(ENV, data=folder)
    start = time.process_time()
    env.prepare(env.tasks("train"), lambda done, total: reports.append((done, total)))
    spent = time.process_time() - start
    assert isinstance(env, WebShop)
    size, goals = env.catalogue.size, env.catalogue.goal_count
    return (
        f"loaded {size:,} products, {goals:,} goals: {spent:.1f} s of CPU "
        f"({1e6 * spent / size:.0f} us each), {len(reports):,} reports of progress, "
        f"peak memory {_peak():.0f} MB, {before:.0f} MB before"
    )


def _peak() -> float:
    """Peak memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def micro(run: Callable[[], object], times: int = 2000) -> float:
    """Median microseconds of CPU per call."""
    return median(seconds(run) for _ in range(times)) * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=128)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--official", type=int, default=0)
    options = parser.parse_args()
    if options.official:
        official(options.official)
        return
    env = build(options.products)
    if options.workers:
        asyncio.run(shared(env, options.sessions, options.workers))
        return
    many(env, options.sessions)
    print(f"steps, every query new: {steps(env):,.0f} per second of one core")
    print(f"the same, with admissible actions: {steps(env, admissible=True):,.0f}")
    print(f"steps, queries asked before, as in a group: {steps(env, fresh=False):,.0f}")
    rng = random.Random(3)
    queries = iter([query(env, rng) for _ in range(600)])
    spent = micro(lambda: env.catalogue.search(next(queries)), 600)
    print(f"search, never asked before: {spent:.0f} us")
    env.reset(seed=0, options={"task": env.tasks("test")[0]})
    env.step("search[black sofa]")
    print(f"fork: {micro(env.fork):.1f} us")
    print(f"oracle: {micro(env.oracle, 200):.0f} us")


if __name__ == "__main__":
    main()
