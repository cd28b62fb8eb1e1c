"""What laying rows end to end saves over padding them: tokens per second and peak memory.

    scripts/bench train [--rows 64] [--repetitions 5] [--model FOLDER]

One forward and backward pass over the same rows, whose lengths are spread as those of episodes
are: most end early, some run to the limit. Both ways in turn, several times; times are medians.
Memory is measured in a fresh process per way, above what was in use before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro

from agentgym import scratch
from agentgym.algorithm import Update
from agentgym.batch import Batch, collate
from agentgym.learner import Learner
from agentgym.losses import negative_log_likelihood
from agentgym.policy import Policy, load_model
from agentgym.settings import Optimisation, Shape
from agentgym.types import Completion, Stop, Task, Trajectory, Turn


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is learned from."""

    rows: int = 64
    """Episodes in the batch, one row each."""
    longest: int = 1024
    """Tokens of the longest row."""
    pass_tokens: int = 16384
    """Tokens per forward and backward pass, before padding."""
    repetitions: int = 5
    """Of both ways."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, the default model made from nothing."""
    measure: Literal["both", "packed", "padded"] = "both"
    """One way alone prints the peak of its memory in MiB."""


def make_learner(options: Options, *, packs: bool) -> Learner:
    """A learner that packs or pads."""
    if options.model is not None:
        model = load_model(options.model)
    else:
        tokenizer = scratch.make_tokenizer(["Kitchen. You see: closed fridge; oven."], 400)
        model = scratch.make_model(tokenizer, Shape(), context=options.longest, seed=0)
    policy = Policy(model)
    policy.packs = packs
    return Learner(policy, Optimisation(tokens_per_pass=options.pass_tokens))


def make_batch(options: Options, vocabulary: int) -> Batch:
    """Rows of turns: 48 tokens read, 12 written."""
    rng = np.random.default_rng(0)
    longest = options.longest // 60
    turns = np.minimum(1 + rng.exponential(longest / 3, options.rows).astype(int), longest)
    turns[0] = longest
    return collate([[_episode(rng, int(count), vocabulary) for count in turns]])


def _episode(rng: np.random.Generator, count: int, vocabulary: int) -> Trajectory:
    def words(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, vocabulary, length).tolist())

    zeros = (0.0,) * 12
    turns = tuple(
        Turn(words(48), Completion(words(12), zeros, zeros), "", "", 0.0, number == 0)
        for number in range(count)
    )
    return Trajectory(Task("", ""), 0, "", "", turns, Stop.TERMINATED)


def run(learner: Learner, batch: Batch) -> float:
    """Seconds of one gradient."""
    learner.optimiser.zero_grad()
    begun = time.perf_counter()
    learner.gradient(batch, Update(loss=negative_log_likelihood()), 0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def growth(learner: Learner, batch: Batch) -> float:
    """How far one gradient raises the memory in use above what it was, MiB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(learner, batch)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # The peak is now what is in use; Linux.
    before = _peak()
    run(learner, batch)
    return (_peak() - before) / 1024


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def measure_alone(way: str) -> float:
    """The peak of a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def vocabulary_of(learner: Learner) -> int:
    """Token ids the model knows."""
    config: Any = learner.policy.model.config
    return int(config.vocab_size)


def main(options: Options) -> None:
    """Times here, memory in processes of their own."""
    if options.measure != "both":
        learner = make_learner(options, packs=options.measure == "packed")
        batch = make_batch(options, vocabulary_of(learner))
        print(growth(learner, batch))
        return
    ways = {name: make_learner(options, packs=name == "packed") for name in ("packed", "padded")}
    batch = make_batch(options, vocabulary_of(ways["packed"]))
    tokens, lengths = len(batch.tokens), batch.lengths.tolist()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repetitions):
        for name, learner in ways.items():
            seconds[name].append(run(learner, batch))
    print(f"{len(lengths)} rows of {min(lengths)} to {max(lengths)} tokens, {tokens} in all")
    memory = {name: measure_alone(name) for name in ways}
    for name, values in seconds.items():
        rate = tokens / median(values)
        spread = f"{min(values):.2f}-{max(values):.2f}"
        print(
            f"  {name}  {median(values):6.2f} s ({spread})  {rate:7.0f} tokens/s"
            f"  peak +{memory[name]:.0f} MiB"
        )
    ratio = median(seconds["padded"]) / median(seconds["packed"])
    print(f"  ratio {ratio:.2f} in time, {memory['padded'] / memory['packed']:.2f} in memory")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
