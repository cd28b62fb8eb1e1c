"""Training time and memory: shared prefixes, packing, logits in pieces, checkpointing, adapters.

    scripts/bench train [--rows 24] [--repetitions 3] [--model FOLDER]

First: an episode with a fresh prompt in every turn that repeats everything before it, so that each
turn is a row; with shared prefixes computed once, and row by row (each row begins with a token of
its own). Then: rows with lengths spread as those of episodes are; packed, packed as transformers
does it (a dense mask), and padded. Last: rows in which every token is trained, with a large
vocabulary: all logits at once; in pieces, which is the default; with gradient checkpointing too;
with adapters too. Times are of one forward and backward pass, medians over repetitions in which
the variants take turns. Memory is the peak of a fresh process per variant, above what was in use.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro
from made import Size, made
from transformers import Qwen2Config, Qwen2ForCausalLM

from agentgym.algorithm import Update
from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.batch.prefix_tree import Forest, build_forest
from agentgym.losses.surrogates import negative_log_likelihood
from agentgym.models import policy
from agentgym.models.loading import load_model
from agentgym.models.lora import add_lora
from agentgym.settings import LoraSettings, OptimizerSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

MAX_LOGITS = policy.MAX_LOGITS
SAVINGS = ("whole", "pieces", "checkpoints", "adapters")
"""Ways to save memory, each with those before it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Size of the measurements."""

    turns: int = 50
    """Turns of the episode with a row per turn."""
    rows: int = 24
    """Episodes in the batch, one row each."""
    longest: int = 1024
    """Tokens of the longest row."""
    pass_tokens: int = 16384
    """Tokens per forward and backward pass, before padding."""
    repetitions: int = 3
    """Measurements of each variant."""
    model: str | None = None
    """Hugging Face folder or hub id; unless given, one is made from scratch."""
    size: Size = "default"
    """Size of that model: small, medium or large (3, 24 or 500 million parameters), or default."""
    vocabulary: int = 32768
    """Vocabulary of the model with which savings are compared."""
    tokens: int = 8192
    """Trained tokens per pass there, in rows of 1024."""
    measure: Literal[
        "all", "packed", "theirs", "padded", "whole", "pieces", "checkpoints", "adapters"
    ] = "all"
    """One variant alone prints the seconds of a pass and its peak memory in MiB."""


class Theirs(policy.Policy):
    """Rows packed as transformers does it: positions that restart mark the rows."""

    def _hidden(self, batch: Batch, forest: Forest, at: torch.Tensor) -> torch.Tensor:
        places = policy.positions(batch)[None]
        output = self.split.hidden(
            input_ids=batch.tokens[None], position_ids=places, use_cache=False
        )
        return output[0, at]


def make_learner(options: Options, way: str) -> Learner:
    """A learner for one variant."""
    if way in SAVINGS:
        policy.MAX_LOGITS = sys.maxsize if way == "whole" else MAX_LOGITS
        model = large(options)
        if way == "adapters":
            add_lora(model, LoraSettings(rank=16), seed=0)
        settings = OptimizerSettings(
            microbatch_tokens=options.tokens,
            gradient_checkpointing=way in ("checkpoints", "adapters"),
        )
        return Learner(policy.Policy(model), settings)
    if options.model is not None:
        model = load_model(options.model)
    else:
        model = made(options.size, context=options.longest)[1]
    found = (Theirs if way == "theirs" else policy.Policy)(model)
    found.shares_prefixes = way != "padded"
    return Learner(found, OptimizerSettings(microbatch_tokens=options.pass_tokens))


def large(options: Options) -> Any:
    """The default model made from scratch, with a larger vocabulary."""
    torch.manual_seed(0)
    shape = ScratchSettings()
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=options.vocabulary,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            intermediate_size=shape.intermediate_size,
            tie_word_embeddings=True,
        )
    ).to("cuda" if torch.cuda.is_available() else "cpu")


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

    return _played([_turn(words(48), words(12), number == 0) for number in range(count)])


def _turn(read: Sequence[int], written: Sequence[int], fresh: bool) -> Turn:
    zeros = (0.0,) * len(written)
    return Turn(tuple(read), Completion(tuple(written), zeros, zeros), "", "", 0.0, fresh)


def _played(turns: Sequence[Turn]) -> Trajectory:
    return Trajectory(Task("", ""), 0, "", "", tuple(turns), Stop.TERMINATED)


def make_turns(options: Options, vocabulary: int, *, thought: int, alone: bool) -> Batch:
    """A row per turn: 24 tokens more to read, and a thought and 8 more tokens to write.

    Args:
        options: How many turns.
        vocabulary: Token ids there are, more than turns.
        thought: Tokens that are written but never shown again, so that rows branch off.
        alone: Every row begins with a token of its own and shares nothing.
    """
    rng = np.random.default_rng(0)
    seen: list[int] = []
    turns = []
    for number in range(options.turns):
        seen += rng.integers(0, vocabulary, 24).tolist()
        written = rng.integers(0, vocabulary, thought + 8).tolist()
        turns.append(_turn((number if alone else 0, *seen), written, True))
        seen += written[thought:]
    return collate([[_played(turns)]])


def make_monologue(options: Options) -> Batch:
    """Rows of 1024 tokens, all written but the first."""
    rng = np.random.default_rng(0)
    rows = [
        rng.integers(0, options.vocabulary, 1024).tolist() for _ in range(options.tokens // 1024)
    ]
    return collate([[_played([_turn(row[:1], row[1:], True)]) for row in rows]])


def run(learner: Learner, batch: Batch) -> float:
    """Seconds of one gradient."""
    learner.optimizer.zero_grad()
    start = time.perf_counter()
    learner.gradient(batch, Update(loss=negative_log_likelihood()), 0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def growth(learner: Learner, batch: Batch) -> tuple[float, float]:
    """Seconds of one gradient, and its peak memory above what was in use, in MiB."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = run(learner, batch)
        return seconds, (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Resets the peak to the memory in use; Linux.
    before = _peak()
    seconds = run(learner, batch)
    return seconds, (_peak() - before) / 1024


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def measured(options: Options, way: str) -> tuple[float, float]:
    """Seconds and peak of a pass; on a CPU in a fresh process, since the peak cannot be reset."""
    if torch.cuda.is_available():
        run(*prepared(options, way))
        return growth(*prepared(options, way))
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", way]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, peak = map(float, output.split())
    return seconds, peak


def prepared(options: Options, way: str) -> tuple[Learner, Batch]:
    """A learner for one variant, and its batch."""
    learner = make_learner(options, way)
    if way in SAVINGS:
        return learner, make_monologue(options)
    return learner, make_batch(options, vocabulary_of(learner))


def vocabulary_of(learner: Learner) -> int:
    """Size of the model's vocabulary."""
    config: Any = learner.policy.model.config
    return int(config.vocab_size)


def main(options: Options) -> None:
    """Measure times in this process and memory in others."""
    if options.measure != "all":
        print(*growth(*prepared(options, options.measure)))
        return
    compare_sharing(options)
    compare_packing(options)
    compare_savings(options)


def in_turn(repetitions: int, ways: Mapping[str, tuple[Learner, Batch]]) -> dict[str, list[float]]:
    """Seconds of every variant, in turns, after one pass each to warm up."""
    for way in ways.values():
        run(*way)
    rounds = [{name: run(*way) for name, way in ways.items()} for _ in range(repetitions)]
    return {name: [found[name] for found in rounds] for name in ways}


def compare_sharing(options: Options) -> None:
    """A row per turn: shared prefixes once, and row by row."""
    learner = make_learner(options, "packed")
    for thought, what in ((0, "all is shown again"), (16, "thoughts are not shown again")):
        ways = {
            name: (
                learner,
                make_turns(options, vocabulary_of(learner), thought=thought, alone=alone),
            )
            for name, alone in (("shared", False), ("alone", True))
        }
        batch = ways["shared"][1]
        different = len(build_forest(batch.tokens, batch.lengths).tokens)
        seconds = in_turn(options.repetitions, ways)
        print(f"{options.turns} turns, {what}: {len(batch.tokens)} tokens, {different} different")
        for name, values in seconds.items():
            print(f"  {name:<7} {_spread(values)}")
        print(f"  ratio {median(seconds['alone']) / median(seconds['shared']):.2f} in time")


def compare_packing(options: Options) -> None:
    """Packed rows, rows packed by transformers, and padded rows."""
    names = ("packed", "theirs", "padded")
    learners = {name: make_learner(options, name) for name in names}
    batch = make_batch(options, vocabulary_of(learners["packed"]))
    tokens, lengths = len(batch.tokens), batch.lengths.tolist()
    seconds = in_turn(options.repetitions, {n: (learners[n], batch) for n in names})
    print(f"{len(lengths)} rows of {min(lengths)} to {max(lengths)} tokens, {tokens} in all")
    memory = {name: measured(options, name)[1] for name in names}
    for name, values in seconds.items():
        rate = tokens / median(values)
        print(f"  {name:<7} {_spread(values)}  {rate:7.0f} tokens/s  peak +{memory[name]:.0f} MiB")
    for name in names[1:]:
        ratio = median(seconds[name]) / median(seconds["packed"])
        print(
            f"  ratio to {name} {ratio:.2f} in time, "
            f"{memory[name] / memory['packed']:.2f} in memory"
        )


def _spread(seconds: Sequence[float]) -> str:
    return f"{median(seconds):6.2f} s ({min(seconds):.2f}-{max(seconds):.2f})"


def compare_savings(options: Options) -> None:
    """Compare the ways to save memory."""
    print(f"{options.tokens} tokens learned from, {options.vocabulary} words")
    found = {way: measured(options, way) for way in SAVINGS}
    most, slow = found["whole"][1], found["pieces"][0]
    for way, (seconds, peak) in found.items():
        print(
            f"  {way:<11}  {seconds:7.2f} s ({seconds / slow:.2f} of pieces)"
            f"  peak +{peak:.0f} MiB ({peak / most:.2f} of whole)"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
