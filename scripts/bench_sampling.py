"""Sampling from a real model in float32 and in bfloat16: local engine, transformers, vLLM.

    scripts/bench sampling [--model FOLDER] [--episodes 8] [--turns 4] [--opening 0]

Episodes in which every turn adds random observation tokens and asks for an answer of fixed length,
all in flight at once. Ways: the local engine (batch-invariant float32, its default for small
models; float32; bfloat16), the naive loop (transformers' ``generate`` over the whole history,
padded), and vLLM in this process where it is installed. Rates are tokens that an episode contains
(observations and answers) per CPU second of all threads of this process; the ways take turns, and
each figure is the best of its repetitions, since other work on the machine only adds.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro
from bench_engines import Options as Episodes
from bench_engines import RandomEpisodes, reset_cache

from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.local.slot_pool import SlotPool
from agentgym.engines.vllm.engine import VLLMEngine
from agentgym.models.loading import load_model

MODEL = Path.home() / ".cache/agentgym/models/smollm2-135m-instruct"
Way = Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Size of the comparison."""

    model: Path = MODEL
    """Hugging Face folder; `scripts/pretrained` makes the default."""
    episodes: int = 8
    """In flight together."""
    turns: int = 4
    """Per episode."""
    observation: int = 96
    """Tokens that a turn adds, on average."""
    completion: int = 32
    """Tokens of an answer."""
    opening: int = 0
    """Tokens with which all episodes begin, as with the manual of a world; not in the rates."""
    repetitions: int = 2
    """Measurements of each way."""
    ways: tuple[str, ...] = ()
    """Only the ways whose names contain one of these; unset: all."""


def local(play: RandomEpisodes, model: Any, context: int, **options: Any) -> Way:
    """The local engine; its cache is emptied before every measurement."""
    engine = LocalEngine(model, slots=play.options.episodes, context=context, **options)

    def run() -> int:
        engine.sleep()
        return play.on(engine)

    return run


def vllm(play: RandomEpisodes, path: str, context: int, dtype: str) -> Way:
    """An engine with vLLM in this process."""
    engine = VLLMEngine(path, slots=play.options.episodes, context=context, dtype=dtype)

    def run() -> int:
        reset_cache(engine)
        return play.on(engine)

    return run


def main(options: Options) -> None:
    """Measure every way and print a table."""
    model: Any = load_model(options.model, dtype=torch.float32)
    play = RandomEpisodes(
        Episodes(
            episodes=options.episodes,
            turns=options.turns,
            observation=options.observation,
            completion=options.completion,
            opening=options.opening,
        ),
        int(model.config.vocab_size),
    )
    context, path = play.options.context, str(options.model)

    def naive(dtype: torch.dtype) -> Way:
        copy = load_model(options.model, dtype=dtype)
        return lambda: play.naive(copy)

    def alone() -> Way:
        way = local(play, model, context, dtype=torch.bfloat16)

        def run() -> int:
            with patch.object(SlotPool, "_join"):
                return way()

        return run

    ways: dict[str, Callable[[], Way]] = {
        "local, float32 batch-invariant": lambda: local(play, model, context),
        "local, float32": lambda: local(play, model, context, batch_invariant=False),
        "local, bfloat16": lambda: local(play, model, context, dtype=torch.bfloat16),
        **({"local, bfloat16, nothing shared": alone} if options.opening else {}),
        "generate, float32": lambda: naive(torch.float32),
        "generate, bfloat16": lambda: naive(torch.bfloat16),
    }
    if find_spec("vllm"):
        ways["vllm, float32"] = lambda: vllm(play, path, context, "float32")
        ways["vllm, bfloat16"] = lambda: vllm(play, path, context, "bfloat16")
    chosen = {
        name: make()
        for name, make in ways.items()
        if not options.ways or any(part in name for part in options.ways)
    }
    measured: dict[str, list[float]] = {name: [] for name in chosen}
    tokens = options.episodes * options.turns * (options.observation + options.completion)
    for way in chosen.values():
        way()
    for _ in range(options.repetitions):
        for name, way in chosen.items():
            before = cpu_seconds()
            way()
            measured[name].append(tokens / (cpu_seconds() - before))
    print(f"{tokens} tokens in {options.episodes} episodes, {torch.get_num_threads()} threads")
    first = max(next(iter(measured.values())))
    for name, rates in measured.items():
        rate = max(rates)
        print(f"  {name:<32} {rate:6.0f} tokens per CPU second ({rate / first:.2f}x)", flush=True)


def cpu_seconds() -> float:
    """Of all threads of this process and of children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
