"""EngineFactory against each other, and what the agent's loop costs on top of vLLM.

    scripts/bench engines [--episodes 64] [--turns 20] [--repetitions 3] [--model FOLDER]

First: episodes in which every turn adds an observation and asks for an answer, with the naive loop
(transformers' ``generate`` over the whole history, all episodes in lock-step), the local engine and
vLLM in this process. Then vLLM by itself, asked for the very prompts and lengths that an agent in a
world asked for, against that agent's loop. The ways take turns, figures are medians. Last: whether
what else is in flight changes a completion. vLLM is left out where it is not installed;
scripts/setup-vllm installs a CPU build in an environment of its own, which this benchmark uses when
it is there.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import tyro
from made import Size, made
from naive import answers

from agentgym.engines import Engine, doctor
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.vllm.arguments import sampling_params
from agentgym.engines.vllm.engine import VLLMEngine
from agentgym.env.registry import EnvFactory
from agentgym.models import from_scratch
from agentgym.models.loading import load_model, load_tokenizer
from agentgym.rollout.action_formats import Plain
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.types import Completion, Sampling, Task, Trajectory
from agentgym.utils.concurrency import gather

T = TypeVar("T")
Way = Callable[[], int]
"""Plays once; tokens generated."""
Ask = Callable[[], Coroutine[Any, Any, Completion]]
"""One completion."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is played."""

    episodes: int = 64
    """In flight together."""
    turns: int = 20
    """Per episode."""
    observation: int = 60
    """Tokens that the world adds each turn, on average: ten more or less."""
    completion: int = 8
    """Tokens of an answer."""
    opening: int = 0
    """Tokens with which all episodes begin."""
    repetitions: int = 3
    """Of every way."""
    naive: int = 1
    """How often the naive loop is measured, which takes minutes."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, one is made."""
    size: Size = "small"
    """Of a model that is made: 3 million parameters, 24, or half a billion with 151,936 words."""

    @property
    def context(self) -> int:
        """Longest context."""
        return self.opening + (self.turns + 1) * (self.observation + 10 + self.completion)


def save_model(options: Options, folder: str) -> str:
    """Where the model is that every way loads."""
    if options.model is not None:
        return options.model
    tokenizer, model = made(options.size, context=8192)
    from_scratch.save(model, tokenizer, Path(folder))
    return folder


class RandomEpisodes:
    """Episodes of random observations."""

    def __init__(self, options: Options, vocabulary: int) -> None:
        self.options, self.vocabulary = options, vocabulary

    def observe(self, episode: int, turn: int) -> list[int]:
        """Observation tokens; more in the first turn."""
        rng = np.random.default_rng([episode, turn])
        length = self.options.observation + int(rng.integers(-10, 11)) + (20 if turn == 0 else 0)
        drawn: list[int] = rng.integers(0, self.vocabulary, length).tolist()
        if turn == 0 and self.options.opening:
            common = np.random.default_rng(0).integers(0, self.vocabulary, self.options.opening)
            return [*common.tolist(), *drawn]
        return drawn

    def on(self, engine: Engine) -> int:
        """By an engine; every episode continues as soon as it has its answer."""
        options = self.options

        async def one(episode: int) -> None:
            context: list[int] = []
            for turn in range(options.turns):
                context += self.observe(episode, turn)
                asked = Sampling(seed=1000 * episode + turn, max_tokens=options.completion)
                context += (await engine.generate(context, asked)).tokens
            engine.finish(context)

        async def everyone() -> None:
            await asyncio.gather(*map(one, range(options.episodes)))

        asyncio.run(everyone())
        return options.episodes * options.turns * options.completion

    def naive(self, model: Any) -> int:
        """By ``generate``: the history of every episode is read again each turn, padded."""
        options = self.options
        contexts: list[list[int]] = [[] for _ in range(options.episodes)]
        for turn in range(options.turns):
            for episode, context in enumerate(contexts):
                context += self.observe(episode, turn)
            length = options.completion
            found = answers(model, contexts, min_new_tokens=length, max_new_tokens=length)
            for context, answer in zip(contexts, found, strict=True):
                context += answer
        return options.episodes * options.turns * options.completion


class Recorded:
    """An engine that records its requests and completions."""

    def __init__(self, engine: VLLMEngine) -> None:
        self.engine, self.context = engine, engine.context
        self.asked: list[tuple[list[int], Sampling, list[int]]] = []

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Pass it on."""
        completion = await self.engine.generate(prompt, sampling)
        found = list(completion.tokens)
        self.asked.append((list(prompt), replace(sampling, max_tokens=len(found), stop=()), found))
        return completion

    def finish(self, context: Sequence[int]) -> None:
        """Nothing to do."""

    def sleep(self) -> None:
        """Nothing to do."""

    def chains(self) -> list[list[tuple[list[int], Sampling]]]:
        """The requests of each episode, in order."""
        found: list[list[tuple[list[int], Sampling]]] = []
        ends: list[list[int]] = []
        for prompt, sampling, found in sorted(self.asked, key=lambda asked: len(asked[0])):  # type: ignore[assignment]
            at = next((k for k, end in enumerate(ends) if prompt[: len(end)] == end), len(ends))
            if at == len(ends):
                found.append([])
                ends.append([])
            found[at].append((prompt, sampling))
            ends[at] = prompt + found
        return found


def in_a_world(options: Options, folder: str, engine: Any) -> int:
    """The agent's loop in the guessing game."""
    player = Player(
        agent=ChatAgent(load_tokenizer(folder), action_format=Plain()),
        engine=engine,
        make_env=EnvFactory(max_turns=options.turns),
        limits=EpisodeLimits(turns=options.turns, tokens=8192),
        sampling=Sampling(max_tokens=options.completion),
        concurrency=options.episodes,
    )
    tasks = [Task("agentgym/Hotter-v0", f"hotter-{k}", k) for k in range(options.episodes)]
    played = asyncio.run(all_of(player, tasks))
    return sum(len(turn.completion.tokens) for t in played for turn in t.turns)


async def all_of(player: Player, tasks: list[Task]) -> list[Trajectory]:
    """All of them at once."""
    return await gather(player(task, 0) for task in tasks)


def by_itself(engine: VLLMEngine, chains: list[list[tuple[list[int], Sampling]]]) -> int:
    """Recorded requests in the loop of vLLM, each when the one before it has been answered."""
    from vllm import TokensPrompt

    def loop() -> int:
        core, generated = engine._thread._engine, 0
        following = [iter(chain) for chain in chains]

        def ask(k: int) -> None:
            for prompt, sampling in islice(following[k], 1):
                asked = sampling_params(sampling, 1)
                core.add_request(str(k), TokensPrompt(prompt_token_ids=prompt), asked)

        for k in range(len(chains)):
            ask(k)
        while core.has_unfinished_requests():
            for answer in core.step():
                generated += len(answer.outputs[0].token_ids)
                ask(int(answer.request_id))
        return generated

    return in_its_thread(engine, loop)


def reset_cache(engine: VLLMEngine) -> None:
    """Empty vLLM's prefix cache, so that no way finds what another left."""
    in_its_thread(engine, lambda: engine._thread._engine.reset_prefix_cache())


def in_its_thread(engine: VLLMEngine, function: Callable[[], T]) -> T:
    """What a function gives that is called in the thread that owns vLLM."""
    done: Future[T] = Future()

    def call() -> None:
        try:
            done.set_result(function())
        except Exception as problem:
            done.set_exception(problem)

    engine._thread.put(call)
    return done.result()


def compare(title: str, ways: dict[str, Way], repetitions: int, *, naive: int = 0) -> None:
    """A line per way: seconds over interleaved repetitions, and its speed over the first way's."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, float] = {}
    for number in range(repetitions):
        for name, way in ways.items():
            if number >= naive and name.startswith("naive"):
                continue
            started = time.perf_counter()
            tokens = way()
            seconds[name].append(time.perf_counter() - started)
            rates[name] = tokens / median(seconds[name])
    print(title)
    first = next(iter(ways))
    for name, values in seconds.items():
        print(
            f"  {name:22} {median(values):7.2f} s ({min(values):.2f}-{max(values):.2f})"
            f"  {rates[name]:6.0f} tokens/s {rates[name] / rates[first]:6.2f} x",
            flush=True,
        )


def alone_and_together(engines: dict[str, Engine], options: Options, vocabulary: int) -> None:
    """Whether what else is in flight changes what a seed gives: tokens and log-probabilities."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, options.context // 2, options.episodes)
    prompts = [rng.integers(0, vocabulary, size).tolist() for size in sizes]
    print(f"{len(prompts)} completions of 16 tokens, one at a time and all at once")
    for name, engine in engines.items():
        asks = [partial(engine.generate, p, Sampling(seed=n)) for n, p in enumerate(prompts)]
        pairs = list(zip(one_by_one(asks), at_once(asks), strict=True))
        alike = [pair for pair in pairs if pair[0].tokens == pair[1].tokens]
        gaps = [abs(x - y) for a, b in alike for x, y in zip(a.logprobs, b.logprobs, strict=True)]
        differ = sum(gap > 0 for gap in gaps) / len(gaps)
        print(
            f"  {name:22} the same tokens in {len(alike)}; in those, {differ:.0%} of the "
            f"log-probabilities differ, by {max(gaps):.1e} nats at most",
            flush=True,
        )


def one_by_one(asks: Sequence[Ask]) -> list[Completion]:
    """Completions, each when the one before it is there."""

    async def play() -> list[Completion]:
        return [await ask() for ask in asks]

    return asyncio.run(play())


def at_once(asks: Sequence[Ask]) -> list[Completion]:
    """Completions in one batch."""

    async def play() -> list[Completion]:
        return await asyncio.gather(*(ask() for ask in asks))

    return asyncio.run(play())


def main(options: Options) -> None:
    """All comparisons."""
    with tempfile.TemporaryDirectory() as folder:
        where = save_model(options, folder)
        model = load_model(where)
        size = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        play = RandomEpisodes(options, model.config.vocab_size)
        engine = partial(LocalEngine, model, slots=options.episodes, context=options.context)
        local = engine()
        ways: dict[str, Way] = {"local": lambda: play.on(local)}
        if local.device.type == "cpu":
            fast = engine(batch_invariant=False)
            ways["local, not batch-invariant"] = lambda: play.on(fast)
        else:
            plain = engine(cuda_graphs=False)
            ways["local, no graphs"] = lambda: play.on(plain)
        if options.naive:
            ways["naive, generate"] = lambda: play.naive(model)
        vllm = None
        if find_spec("vllm"):
            vllm = VLLMEngine(where, slots=options.episodes, context=8192)

            def on_vllm() -> int:
                reset_cache(vllm)
                return play.on(vllm)

            ways["vllm"] = on_vllm
        title = (
            f"{options.episodes} episodes x {options.turns} turns, {size:.1f} M parameters, "
            f"{model.dtype} on {doctor.device()}"  # type: ignore[attr-defined]
        )
        compare(title, ways, options.repetitions, naive=options.naive)
        if vllm is None:
            alone_and_together({"local": local}, options, model.config.vocab_size)
            print("vLLM is not installed here: scripts/setup-vllm makes an environment that has it")
            return
        recorded = Recorded(vllm)
        in_a_world(options, where, recorded)
        chains = recorded.chains()

        def loop() -> int:
            reset_cache(vllm)
            return in_a_world(options, where, vllm)

        def alone() -> int:
            reset_cache(vllm)
            return by_itself(vllm, chains)

        compare(
            f"agents in a world, {sum(map(len, chains))} requests of {len(chains)} episodes",
            {"vllm by itself": alone, "agent's loop on vllm": loop},
            options.repetitions,
        )
        alone_and_together({"local": local, "vllm": vllm}, options, model.config.vocab_size)
        vllm.close()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
