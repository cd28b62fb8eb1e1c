"""What players on a cluster cost and save, as ratios measured in one run.

    scripts/bench players [controller worlds publish]

controller: CPU of the controlling process per turn, playing itself and with two player actors;
    the goal is 30 us with actors. Turns have 100 tokens, and the engine answers at once.
worlds: steps of light worlds per second, in processes of this machine and within players; the goal
    is half as many.
publish: bytes and seconds until two players' engines have new weights: whole ones through the
    object store, by a file that each reads, and by broadcast; and adapters alone.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from made import made
from safetensors.torch import load_file, save_file

from agentgym.cluster.broadcast import Broadcaster
from agentgym.cluster.connect import (
    bundle,
    connect,
    disconnect,
    end_all,
    place,
    ray_library,
    start_in,
)
from agentgym.cluster.engines import EngineFacts, EnginePool
from agentgym.cluster.players import ClusterGroups, PlayerActor, Playing
from agentgym.cluster.roster import Roster
from agentgym.engines.scripted import ScriptedEngine
from agentgym.engines.weight_stream import WeightStream
from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory
from agentgym.models.lora import adapter_weights, add_lora, merge_lora
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.collect import independent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits, Usage
from agentgym.settings import ClusterSettings, LoraSettings
from agentgym.training.groups import Groups, LocalGroups
from agentgym.types import Sampling, Task
from agentgym.utils.concurrency import gather

ENV = "agentgym/Hotter-v0"
LENGTH, TURNS, MEMBERS, PLAYERS = 100, 30, 8, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    parts: Annotated[tuple[str, ...], tyro.conf.Positional] = ("controller", "worlds", "publish")
    """Names of the measurements."""
    tasks: int = 32
    """Groups of episodes."""
    worlds: int = 64
    """Environments that are stepped."""
    steps: int = 400
    """Steps of each."""
    repetitions: int = 3
    """Measurements of each figure, of which the median counts."""


@dataclass(frozen=True)
class Hotter:
    """Guesses at random, in completions of ``LENGTH`` tokens; a value that can be sent."""

    @asynccontextmanager
    async def __call__(self, engines: EnginePool | None) -> AsyncIterator[Playing]:
        """A player with one process for its environments."""
        tokenizer, _ = made("default", context=4096)

        def respond(prompt: Sequence[int], sampling: Sampling) -> list[int]:
            number = random.Random(sampling.seed).randrange(1, 101)
            text = f"<action>{number}</action><|end|>"
            act = tokenizer(text, add_special_tokens=False)["input_ids"]
            return [7] * (LENGTH - len(act)) + list(act)

        async with ProcessPool(workers=1) as pool:
            player = Player(
                agent=ChatAgent(tokenizer),
                engine=ScriptedEngine(respond),
                make_env=EnvFactory(env=ENV, kwargs={}, max_turns=TURNS),
                executor=pool,
                limits=EpisodeLimits(turns=TURNS, tokens=10**9),
                sampling=Sampling(max_tokens=LENGTH + 1),
                concurrency=512,
            )
            yield Playing(player, independent(MEMBERS))


@dataclass(frozen=True)
class Stepping:
    """Collects by stepping environments alone; the group is empty."""

    worlds: int
    steps: int

    @asynccontextmanager
    async def __call__(self, engines: EnginePool | None) -> AsyncIterator[Playing]:
        """A player with one process for its environments."""
        async with Hotter()(engines) as playing:

            async def collect(task: Task, play: Any) -> list[Any]:
                await step(playing.player.executor, self.worlds, self.steps)
                return []

            yield Playing(playing.player, collect)


async def step(executor: Any, worlds: int, steps: int) -> None:
    """Step so many environments so many times, side by side."""
    make, task = EnvFactory(env=ENV, kwargs={}, max_turns=10**9), Task(ENV, "hotter-1")
    there = [await executor.open(make, task) for _ in range(worlds)]

    async def go(env: Any) -> None:
        await env.reset(task)
        for _ in range(steps):
            await env.step("500")

    await gather(map(go, there))
    await gather(env.close() for env in there)


class Reader(ScriptedEngine):
    """Reads every byte of its weights, as an engine would."""

    stream_device = "cpu"

    def load(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Read them."""
        self.load_stream(WeightStream.of(weights), version)

    def load_stream(self, weights: WeightStream, version: int) -> None:
        """Read them as they arrive."""
        for _, weight in weights:
            weight.contiguous().view(-1).view(torch.uint8).sum()


class Receiving(PlayerActor):
    """A player that reads what it is sent."""

    reader = Reader(lambda prompt, sampling: [0])

    @property
    def engine(self) -> Reader:
        """Reads weights."""
        return self.reader

    async def open(self) -> EngineFacts:
        """Nothing to make."""
        return EngineFacts.of(self.engine)

    async def read(self, file: Path) -> None:
        """Read a file of weights."""
        await asyncio.to_thread(lambda: self.engine.load(load_file(file), 0))


@asynccontextmanager
async def roster(make: Any, kind: type = PlayerActor) -> AsyncIterator[Roster]:
    """Players on the cluster."""
    group = place("players", [bundle()] * PLAYERS, "SPREAD", 60)

    def start(number: int) -> Any:
        return start_in(group, number, bundle(), kind, make, None, None, calls=1000)

    players = Roster("player", PLAYERS, start, print)
    await players.open()
    try:
        yield players
    finally:
        await players.close()
        end_all()


async def measured(play: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """CPU seconds of this process, and seconds."""
    cpu, start = time.process_time(), time.perf_counter()
    await play()
    return time.process_time() - cpu, time.perf_counter() - start


async def controller(options: Options) -> Iterator[str]:
    """Microseconds of this process per turn."""
    tasks = [Task(ENV, f"hotter-{n % 16}") for n in range(options.tasks)]

    async def per_turn(groups: Groups) -> float:
        found = []

        async def play() -> None:
            found[:] = await gather(groups.collect(t, str(n)) for n, t in enumerate(tasks))

        cpus = []
        for _ in range(options.repetitions):
            cpu, _seconds = await measured(play)
            cpus.append(cpu / sum(len(episode.turns) for group in found for episode in group))
        return 1e6 * median(cpus)

    async with Hotter()(None) as here:
        alone = await per_turn(LocalGroups(here.collect, here.player))
    async with roster(Hotter()) as players:
        placed = await per_turn(ClusterGroups(players, None, Usage()))
    return iter([f"controller: {alone:.0f} us a turn playing itself, {placed:.0f} with players"])


async def worlds(options: Options) -> Iterator[str]:
    """Steps per second."""
    total = options.worlds * options.steps
    here, there = [], []
    async with (
        ProcessPool(workers=PLAYERS) as pool,
        roster(Stepping(options.worlds // PLAYERS, options.steps)) as players,
    ):
        groups, task = ClusterGroups(players, None, Usage()), Task(ENV, "hotter-1")
        for _ in range(options.repetitions):
            here.append((await measured(lambda: step(pool, options.worlds, options.steps)))[1])
            both = [groups.collect(task, str(n)) for n in range(PLAYERS)]
            there.append((await measured(lambda both=both: gather(both)))[1])
    local, placed = total / median(here), total / median(there)
    return iter(
        [
            f"worlds: {local:,.0f} steps/s in processes of this machine, {placed:,.0f} within"
            f" players: {placed / local:.0%}"
        ]
    )


async def publish(options: Options) -> Iterator[str]:
    """Bytes and seconds of a publication."""
    _, model = made("medium", context=4096)
    add_lora(model, LoraSettings(rank=16), seed=0)
    whole, adapters = merge_lora(model).state_dict(), adapter_weights(model)
    lines = []
    async with roster(None, Receiving) as players:
        actors = [seat.actor for seat in players.seats]

        async def measure(name: str, weights: Mapping[str, torch.Tensor], way: Any) -> None:
            times = []
            for version in range(options.repetitions + 1):
                start = time.perf_counter()
                await asyncio.to_thread(way, weights, version)
                times.append(time.perf_counter() - start)
            distinct = {w.data_ptr(): w.nbytes for w in weights.values()}
            size = sum(distinct.values()) / 1e6
            # The first broadcast also forms the group.
            lines.append(
                f"publish {name}: {size:.1f} MB in {median(times[1:]):.3f} s to two players"
                f" (the first time {times[0]:.3f})"
            )

        def by_file(weights: Mapping[str, torch.Tensor], version: int) -> None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.safetensors"
                save_file({name: weight.clone() for name, weight in weights.items()}, file)
                ray_library().get([actor.read.remote(file) for actor in actors])

        await measure("whole, object store", whole, players.publish)
        await measure("whole, file", whole, by_file)
        players.broadcaster = Broadcaster("gloo", 60)
        await measure("whole, broadcast", whole, players.publish)
        players.broadcaster.close()
        players.broadcaster = None
        await measure("adapters, object store", adapters, players.publish)
    return iter(lines)


PARTS = {"controller": controller, "worlds": worlds, "publish": publish}


def main(options: Options) -> None:
    """Print the chosen figures."""
    torch.set_num_threads(1)
    connect(ClusterSettings(address="local", players=PLAYERS))
    try:
        for part in options.parts:
            for line in asyncio.run(PARTS[part](options)):
                print(line, flush=True)
    finally:
        disconnect()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
