"""What laying rows end to end saves over padding them, and what saves memory besides.

    scripts/bench train [--rows 64] [--repetitions 5] [--model FOLDER]

First: one forward and backward pass over the same rows, whose lengths are spread as those of
episodes are: most end early, some run to the limit. Both ways in turn, several times; times are
medians. Then: one pass over rows in which every token is learned from, with a large vocabulary:
all logits at once; in pieces, as is always done; with gradient checkpointing, too; and with
adapters, too. Memory is measured in a fresh process per way, above what was in use before.
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
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentgym import policy, scratch
from agentgym.adapters import adapt
from agentgym.algorithm import Update
from agentgym.batch import Batch, collate
from agentgym.learner import Learner
from agentgym.losses import negative_log_likelihood
from agentgym.settings import Lora, Optimisation, Shape
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

SAVINGS = ("whole", "pieces", "checkpoints", "adapters")
"""Of memory, each with those before it."""


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
    vocabulary: int = 32768
    """Of the model with which savings are compared."""
    tokens: int = 8192
    """Tokens that are learned from at once there, in rows of 1024."""
    measure: Literal["all", "packed", "padded", "whole", "pieces", "checkpoints", "adapters"] = (
        "all"
    )
    """One way alone prints the seconds of a pass and the peak of its memory in MiB."""


def make_learner(options: Options, way: str) -> Learner:
    """A learner that does it one way."""
    if way in SAVINGS:
        policy.AT_ONCE = sys.maxsize if way == "whole" else policy.AT_ONCE
        model = large(options)
        if way == "adapters":
            adapt(model, Lora(rank=16), seed=0)
        how = Optimisation(
            tokens_per_pass=options.tokens,
            gradient_checkpointing=way in ("checkpoints", "adapters"),
        )
        return Learner(policy.Policy(model), how)
    if options.model is not None:
        model = policy.load_model(options.model)
    else:
        tokenizer = scratch.make_tokenizer(["Kitchen. You see: closed fridge; oven."], 400)
        model = scratch.make_model(tokenizer, Shape(), context=options.longest, seed=0)
    found = policy.Policy(model)
    found.packs = way != "padded"
    return Learner(found, Optimisation(tokens_per_pass=options.pass_tokens))


def large(options: Options) -> Any:
    """The default model made from nothing, with more words."""
    torch.manual_seed(0)
    shape = Shape()
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=options.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            intermediate_size=shape.ffn,
            tie_word_embeddings=True,
        )
    )


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


def make_monologue(options: Options) -> Batch:
    """Rows of 1024 tokens, all written but the first."""
    rng = np.random.default_rng(0)
    rows = [
        rng.integers(0, options.vocabulary, 1024).tolist() for _ in range(options.tokens // 1024)
    ]
    zeros = (0.0,) * 1023
    turns = [
        Turn((first,), Completion(tuple(rest), zeros, zeros), "", "", 0.0, True)
        for first, *rest in rows
    ]
    return collate([[Trajectory(Task("", ""), 0, "", "", (t,), Stop.TERMINATED) for t in turns]])


def run(learner: Learner, batch: Batch) -> float:
    """Seconds of one gradient."""
    learner.optimiser.zero_grad()
    begun = time.perf_counter()
    learner.gradient(batch, Update(loss=negative_log_likelihood()), 0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def growth(learner: Learner, batch: Batch) -> tuple[float, float]:
    """Seconds of one gradient, and how far it raises the memory in use above what it was, MiB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = run(learner, batch)
        return seconds, (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # The peak is now what is in use; Linux.
    before = _peak()
    seconds = run(learner, batch)
    return seconds, (_peak() - before) / 1024


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def measure_alone(way: str) -> tuple[float, float]:
    """Seconds and peak of a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = map(float, told.split())
    return seconds, peak


def vocabulary_of(learner: Learner) -> int:
    """Token ids the model knows."""
    config: Any = learner.policy.model.config
    return int(config.vocab_size)


def main(options: Options) -> None:
    """Times of packing here, everything else in processes of its own."""
    if options.measure != "all":
        learner = make_learner(options, options.measure)
        saves = options.measure in SAVINGS
        batch = make_monologue(options) if saves else make_batch(options, vocabulary_of(learner))
        print(*growth(learner, batch))
        return
    compare_packing(options)
    compare_savings(options)


def compare_packing(options: Options) -> None:
    """Rows end to end, and padded."""
    ways = {name: make_learner(options, name) for name in ("packed", "padded")}
    batch = make_batch(options, vocabulary_of(ways["packed"]))
    tokens, lengths = len(batch.tokens), batch.lengths.tolist()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repetitions):
        for name, learner in ways.items():
            seconds[name].append(run(learner, batch))
    print(f"{len(lengths)} rows of {min(lengths)} to {max(lengths)} tokens, {tokens} in all")
    memory = {name: measure_alone(name)[1] for name in ways}
    for name, values in seconds.items():
        rate = tokens / median(values)
        spread = f"{min(values):.2f}-{max(values):.2f}"
        print(
            f"  {name}  {median(values):6.2f} s ({spread})  {rate:7.0f} tokens/s"
            f"  peak +{memory[name]:.0f} MiB"
        )
    ratio = median(seconds["padded"]) / median(seconds["packed"])
    print(f"  ratio {ratio:.2f} in time, {memory['padded'] / memory['packed']:.2f} in memory")


def compare_savings(options: Options) -> None:
    """What saves memory, one after another."""
    print(f"{options.tokens} tokens learned from, {options.vocabulary} words")
    found = {way: measure_alone(way) for way in SAVINGS}
    most, slow = found["whole"][1], found["pieces"][0]
    for way, (seconds, peak) in found.items():
        print(
            f"  {way:<11}  {seconds:7.2f} s ({seconds / slow:.2f} of pieces)"
            f"  peak +{peak:.0f} MiB ({peak / most:.2f} of whole)"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
