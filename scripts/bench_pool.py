"""What the pool saves: worlds that do not wait for one another, against Gymnasium's AsyncVectorEnv.

    scripts/bench pool [--worlds 32] [--workers 2] [--repetitions 5]

The same worlds take equally many steps in both: 400 characters and the usual ``info`` per answer.
In the pool a world that has answered is asked again at once, as in a rollout with more episodes
than seats, until that many have been asked for; the time ends with the last answer. Light steps
compute nothing; heavy-tailed ones wait, as for a server or another program, for times of a
log-normal law. Each way runs in turn, several times, in one process; figures are medians.
AsyncVectorEnv has one process per world and is given ``shared_memory=False``, without which it
cannot carry text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import tyro
from gymnasium.vector import AsyncVectorEnv

from agentgym.env.base import Opening, Outcome, TextEnv
from agentgym.env.process_pool import ProcessPool
from agentgym.types import Task

TEXT = "You are in a kitchen. " * 18
LAWS = {
    "light": (0.0, 0.0),
    "heavy-tailed": (0.002, 2.0),
}
"""Median of a step's seconds, and the standard deviation of their logarithm."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is played."""

    worlds: int = 32
    workers: int = 2
    """Processes of the pool."""
    light: int = 500
    """Steps of a world, where they compute nothing."""
    heavy: int = 30
    """Steps of a world, where they wait."""
    repetitions: int = 5
    """Of every way."""


class Waiting(TextEnv):
    """Answers after a time that the seed decides."""

    def __init__(self, middle: float, spread: float) -> None:
        super().__init__()
        self.middle, self.spread = middle, spread

    def tasks(self, split: str) -> tuple[str, ...]:
        """There is one."""
        return ("wait",)

    def start(self, task: str, rng: np.random.Generator) -> Opening:
        """Take the generator."""
        self.rng = rng
        return Opening(TEXT, "wait")

    def act(self, action: str) -> Outcome:
        """Wait; the longest time is cut at two seconds, so that no run hangs on one step."""
        if self.middle:
            time.sleep(min(2.0, self.middle * float(np.exp(self.spread * self.rng.normal()))))
        return Outcome(TEXT)


@dataclass(frozen=True)
class Making:
    """Makes such a world: a value that can be sent to a process."""

    law: str

    def __call__(self, task: Task | None = None) -> gymnasium.Env[str, str]:
        """The world."""
        return Waiting(*LAWS[self.law])


def seconds_of_gymnasium(law: str, worlds: int, steps: int) -> float:
    """Every world takes its steps, all side by side."""
    envs: Any = AsyncVectorEnv([Making(law)] * worlds, shared_memory=False)
    envs.reset(seed=list(range(worlds)))
    actions = ("wait",) * worlds
    began = time.perf_counter()
    for _ in range(steps):
        envs.step(actions)
    taken = time.perf_counter() - began
    envs.close()
    return taken


def seconds_of_pool(law: str, worlds: int, steps: int, *, workers: int) -> float:
    """As many steps in all, each world at its own pace."""

    async def play() -> float:
        async with ProcessPool(workers=workers) as pool:
            tasks = [Task("", "wait", seed) for seed in range(worlds)]
            there = [await pool.open(Making(law), task) for task in tasks]
            await asyncio.gather(*map(lambda world, task: world.reset(task), there, tasks))

            budget = iter(range(worlds * steps))

            async def run(world: Any) -> None:
                for _ in budget:
                    await world.step("wait")

            began = time.perf_counter()
            await asyncio.gather(*map(run, there))
            return time.perf_counter() - began

    return asyncio.run(play())


def main(options: Options) -> None:
    """Both laws, both ways."""
    counts = {"light": options.light, "heavy-tailed": options.heavy}
    ways: dict[str, Callable[[str, int, int], float]] = {
        f"AsyncVectorEnv, {options.worlds} processes": seconds_of_gymnasium,
        f"pool, {options.workers} processes": partial(seconds_of_pool, workers=options.workers),
    }
    for law, steps in counts.items():
        print(f"{law} steps, {options.worlds} worlds", flush=True)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repetitions):
            for name, way in ways.items():
                taken = way(law, options.worlds, steps)
                rates[name].append(options.worlds * steps / taken)
        first = median(next(iter(rates.values())))
        for name, found in rates.items():
            middle = median(found)
            print(
                f"  {name:32} {middle:8,.0f} steps/s ({min(found):,.0f}-{max(found):,.0f})"
                f"  {middle / first:5.2f} x",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
