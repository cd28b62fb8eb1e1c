"""What the local engine saves: a cache that outlives the turn, and no lock-step.

    scripts/bench rollout [--turns 20] [--episodes 32] [--repetitions 3] [--model FOLDER]

Every comparison runs its ways in turn, several times, in one process; figures are medians. Worlds
are replaced by random tokens, so only the engine is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import tyro
from made import made

from agentgym.engines.local.engine import LocalEngine
from agentgym.models.loading import load_model
from agentgym.types import Sampling

Way = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is played."""

    turns: int = 20
    """Longest episode, in turns."""
    episodes: int = 32
    """Slots of the engine."""
    observation: int = 48
    """Tokens that the world adds each turn."""
    completion: int = 12
    """Tokens that the policy adds each turn, on average: from half to one and a half times it."""
    slow: float = 0.3
    """Seconds that a slow tool takes; one call in five is slow where tools are."""
    repetitions: int = 3
    """Of every way."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, the default model made from scratch."""


def make_model(options: Options) -> Any:
    """The model to sample from."""
    if options.model is not None:
        return load_model(options.model)
    return made("default", context=8192)[1]


class Play:
    """Episodes of random observations on one engine."""

    def __init__(self, model: Any, options: Options) -> None:
        room = options.turns * (options.observation + 2 * options.completion)
        self.engine = LocalEngine(model, slots=options.episodes, context=room)
        self.options = options
        self.vocabulary = model.config.vocab_size
        self.slow = 0.0
        """Share of the tool calls that are slow."""

    async def turn(self, context: list[int], seed: int) -> list[int]:
        """Observe, perhaps after a while, and answer; the longer context."""
        rng = np.random.default_rng(seed)
        if rng.random() < self.slow:
            await asyncio.sleep(self.options.slow)
        drawn = rng.integers(0, self.vocabulary, self.options.observation)
        context = [*context, *drawn.tolist()]
        least = -(-self.options.completion // 2)
        length = least + seed % (2 * (self.options.completion - least) + 1)
        asked = Sampling(seed=seed, max_tokens=length)
        return [*context, *(await self.engine.generate(context, asked)).tokens]

    async def episode(self, number: int, turns: int, caching: bool) -> None:
        """From the first turn to the last."""
        context: list[int] = []
        for turn in range(turns):
            if not caching:
                # As an engine without memory would: nothing is found again.
                self.engine._batcher.pool.forget()  # type: ignore[attr-defined]
            context = await self.turn(context, 1000 * number + turn)
        self.engine.finish(context)

    async def continuous(self, lengths: list[int], *, caching: bool = True) -> None:
        """An episode that ends is replaced by the next at once."""
        gate = asyncio.Semaphore(self.options.episodes)

        async def one(number: int) -> None:
            async with gate:
                await self.episode(number, lengths[number], caching)

        await asyncio.gather(*map(one, range(len(lengths))))

    async def lockstep(self, lengths: list[int], *, drop: bool) -> None:
        """Batches of episodes; a turn begins when all have ended theirs, a batch likewise.

        With ``drop`` an episode that has ended gets no call; otherwise the whole batch continues
        to the end of its longest, as in loops that only mask the ended ones out.
        """
        size = self.options.episodes
        for first in range(0, len(lengths), size):
            batch = range(first, min(first + size, len(lengths)))
            contexts: dict[int, list[int]] = {number: [] for number in batch}
            for turn in range(max(lengths[number] for number in batch)):
                going = [number for number in batch if not drop or turn < lengths[number]]
                turns_taken = (
                    self.turn(contexts[number], 1000 * number + turn) for number in going
                )
                contexts |= zip(going, await asyncio.gather(*turns_taken), strict=True)
            for context in contexts.values():
                self.engine.finish(context)


def lengths(count: int, success: float, turns: int) -> list[int]:
    """A success ends anywhere in the first five sixths of the horizon, a failure at its end."""
    rng = np.random.default_rng(0)
    early = rng.integers(1, max(2, turns * 5 // 6 + 1), count)
    won = rng.random(count) < success
    return [int(length) if win else turns for length, win in zip(early, won, strict=True)]


def compare(title: str, play: Play, ways: dict[str, Way], work: int) -> None:
    """A line per way: seconds over interleaved repetitions, model calls, the first way's gain.

    On a CPU the time follows the tokens, on an accelerator rather the number of model calls.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    calls = dict.fromkeys(ways, 0)
    for _ in range(play.options.repetitions):
        for name, way in ways.items():
            before, start = play.engine.stats(), time.perf_counter()
            asyncio.run(way())
            seconds[name].append(time.perf_counter() - start)
            calls[name] = play.engine.stats().since(before).steps
    print(title)
    first = next(iter(ways))
    for name, values in seconds.items():
        middle = median(values)
        gain = middle / median(seconds[first]), calls[name] / calls[first]
        print(
            f"  {name:25} {middle:7.2f} s ({min(values):.2f}-{max(values):.2f})"
            f"  {work / middle:5.0f} turns/s {gain[0]:5.2f} x"
            f"  {calls[name]:5} calls {gain[1]:5.2f} x",
            flush=True,
        )


def main(options: Options) -> None:
    """Both comparisons."""
    play = Play(make_model(options), options)
    plain = [options.turns] * options.episodes
    ways: dict[str, Way] = {
        "cache across turns": partial(play.continuous, plain),
        "whole prompt every turn": partial(play.continuous, plain, caching=False),
    }
    compare(f"cache, {options.turns} turns", play, ways, sum(plain))
    for success, slow in ((0.3, 0.0), (0.6, 0.0), (0.85, 0.0), (0.85, 0.2)):
        some, play.slow = lengths(4 * options.episodes, success, options.turns), slow
        ways = {
            "continuous": partial(play.continuous, some),
            "lock-step, ended dropped": partial(play.lockstep, some, drop=True),
            "lock-step, whole batch": partial(play.lockstep, some, drop=False),
        }
        tools = f", {slow:.0%} of the tool calls are slow" if slow else ""
        compare(
            f"scheduling, {success:.0%} of the episodes end early{tools}", play, ways, sum(some)
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
