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
from statistics import median
from typing import Any

import numpy as np
import tyro

from agentgym import scratch
from agentgym.engines.local import LocalEngine
from agentgym.policy import load_model
from agentgym.settings import Shape
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
    """Tokens that the policy adds each turn."""
    repetitions: int = 3
    """Of every way."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, the default model made from nothing."""


def make_model(options: Options) -> Any:
    """The model to sample from."""
    if options.model is not None:
        return load_model(options.model)
    tokenizer = scratch.make_tokenizer(["Kitchen. You see: closed fridge; oven."], 400)
    return scratch.make_model(tokenizer, Shape(), context=8192, seed=0)


class Play:
    """Episodes of random observations on one engine."""

    def __init__(self, model: Any, options: Options, *, caching: bool = True) -> None:
        room = options.turns * (options.observation + options.completion)
        self.engine = LocalEngine(model, slots=options.episodes, context=room)
        self.options, self.caching = options, caching
        self.vocabulary = model.config.vocab_size

    async def turn(self, context: list[int], seed: int) -> list[int]:
        """Observe and answer; the longer context."""
        drawn = np.random.default_rng(seed).integers(0, self.vocabulary, self.options.observation)
        context = [*context, *drawn.tolist()]
        if not self.caching:
            # As an engine without memory would: nothing is found again.
            self.engine._batcher.pool.forget()
        asked = Sampling(seed=seed, max_tokens=self.options.completion)
        return [*context, *(await self.engine.generate(context, asked)).tokens]

    async def episode(self, number: int, turns: int) -> None:
        """From the first turn to the last."""
        context: list[int] = []
        for turn in range(turns):
            context = await self.turn(context, 1000 * number + turn)
        self.engine.finish(context)

    async def continuous(self, lengths: list[int]) -> None:
        """Who ends makes room for the next episode at once."""
        gate = asyncio.Semaphore(self.options.episodes)

        async def one(number: int) -> None:
            async with gate:
                await self.episode(number, lengths[number])

        await asyncio.gather(*map(one, range(len(lengths))))

    async def lockstep(self, lengths: list[int]) -> None:
        """Batches of episodes; a turn begins when all have ended theirs, a batch likewise."""
        size = self.options.episodes
        for first in range(0, len(lengths), size):
            batch = range(first, min(first + size, len(lengths)))
            contexts: dict[int, list[int]] = {number: [] for number in batch}
            for turn in range(max(lengths[number] for number in batch)):
                going = [number for number in batch if turn < lengths[number]]
                told = (self.turn(contexts[number], 1000 * number + turn) for number in going)
                contexts |= zip(going, await asyncio.gather(*told), strict=True)
            for context in contexts.values():
                self.engine.finish(context)


def lengths(count: int, success: float, turns: int) -> list[int]:
    """A success ends anywhere from a quarter to the whole of the horizon, a failure at its end."""
    rng = np.random.default_rng(0)
    early = rng.integers(max(1, turns // 4), turns, count)
    won = rng.random(count) < success
    return [int(length) if win else turns for length, win in zip(early, won, strict=True)]


def compare(ways: dict[str, Way], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every way, in interleaved repetitions."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            begun = time.perf_counter()
            asyncio.run(way())
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def show(title: str, seconds: dict[str, list[float]], work: int) -> None:
    """A line per way; the ratio is the first way's gain over the second."""
    middle = {name: median(values) for name, values in seconds.items()}
    print(title)
    for name, value in middle.items():
        spread = f"{min(seconds[name]):.2f}-{max(seconds[name]):.2f}"
        print(f"  {name:26} {value:7.2f} s ({spread})  {work / value:8.0f} turns/s")
    first, second = middle.values()
    print(f"  ratio {second / first:.2f}")


def main(options: Options) -> None:
    """Both comparisons."""
    model = make_model(options)
    kept, forgotten = Play(model, options), Play(model, options, caching=False)
    plain = [options.turns] * options.episodes
    ways = {
        "cache across turns": lambda: kept.continuous(plain),
        "prompt anew every turn": lambda: forgotten.continuous(plain),
    }
    work = sum(plain)
    show(f"cache, {options.turns} turns", compare(ways, options.repetitions), work)
    for success in (0.3, 0.6, 0.85):
        some = lengths(4 * options.episodes, success, options.turns)
        ways = {
            "continuous": lambda some=some: kept.continuous(some),  # type: ignore[misc]
            "lock-step": lambda some=some: kept.lockstep(some),  # type: ignore[misc]
        }
        title = f"scheduling, {success:.0%} of the episodes end early"
        show(title, compare(ways, options.repetitions), sum(some))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
