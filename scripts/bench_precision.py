"""Training of a real model in float32 and in bfloat16, against plain transformers.

    scripts/bench precision [--model FOLDER] [--tokens 1024] [--repetitions 3]

Each pass computes the gradient of a batch of episodes: rows of equal length, one token in four
written by the policy. Ways: this package with all weights trained and with adapters, and
transformers alone (a loss over the same tokens, padded rows, its own attention), each in float32
and in bfloat16. Times are process CPU seconds of all threads, the ways in turn: medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro

from agentgym.algorithm import Update
from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.losses.surrogates import negative_log_likelihood
from agentgym.models.loading import load_model
from agentgym.models.lora import add_lora
from agentgym.models.policy import Policy
from agentgym.settings import LoraSettings, OptimizerSettings, Precision
from agentgym.training.learner import Learner
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

MODEL = Path.home() / ".cache/agentgym/models/smollm2-135m-instruct"
READ, WRITTEN = 96, 32
"""Tokens of a turn."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Size of the comparison."""

    model: Path = MODEL
    """Hugging Face folder; `scripts/pretrained` makes the default."""
    rows: int = 4
    """Episodes per pass."""
    tokens: int = 1024
    """Tokens per episode."""
    repetitions: int = 3
    """Measurements of each way."""
    only: str = ""
    """Measure only the ways with this text in their names."""


def make_batch(options: Options, vocabulary: int) -> Batch:
    """Episodes of random tokens."""
    rng = np.random.default_rng(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.integers(0, vocabulary, count).tolist())

    def episode(sample: int) -> Trajectory:
        zeros = (0.0,) * WRITTEN
        turns = tuple(
            Turn(words(READ), Completion(words(WRITTEN), zeros, zeros), "", "", 0.0, k == 0)
            for k in range(options.tokens // (READ + WRITTEN))
        )
        return Trajectory(Task("", ""), sample, "", "", turns, Stop.TERMINATED)

    return collate([[episode(k) for k in range(options.rows)]])


def ours(options: Options, precision: Precision, rank: int | None) -> Callable[[Batch], None]:
    """The gradient as training computes it."""
    model = load_model(options.model, dtype=torch.float32)
    if rank is not None:
        add_lora(model, LoraSettings(rank=rank), seed=0)
    settings = OptimizerSettings(precision=precision, microbatch_tokens=4096)
    learner = Learner(Policy(model), settings)

    def run(batch: Batch) -> None:
        learner.optimizer.zero_grad()
        learner.gradient(batch, Update(loss=negative_log_likelihood()), 0)

    return run


def plain(options: Options, dtype: torch.dtype) -> Callable[[Batch], None]:
    """The gradient of the same loss by transformers alone."""
    model: Any = load_model(options.model, dtype=dtype).train()  # type: ignore[attr-defined]

    def run(batch: Batch) -> None:
        model.zero_grad()
        at = torch.where(batch.mask, batch.tokens, -100)
        rows, labels = (column.view(options.rows, -1) for column in (batch.tokens, at))
        for row, label in zip(rows, labels, strict=True):
            model(
                input_ids=row[None].to(model.device), labels=label[None].to(model.device)
            ).loss.backward()

    return run


def main(options: Options) -> None:
    """Measure every way and print a table."""
    vocabulary = int(load_model(options.model).config.vocab_size)
    batch = make_batch(options, vocabulary)
    ways: dict[str, Callable[[], Callable[[Batch], None]]] = {
        "all weights, float32": partial(ours, options, "float32", None),
        "all weights, bfloat16": partial(ours, options, "bfloat16", None),
        "LoRA, float32": partial(ours, options, "float32", 16),
        "LoRA, bfloat16": partial(ours, options, "bfloat16", 16),
        "transformers, float32": partial(plain, options, torch.float32),
        "transformers, bfloat16": partial(plain, options, torch.bfloat16),
    }
    print(f"{len(batch.tokens)} tokens per pass, {torch.get_num_threads()} threads")
    first = 0.0
    for name, make in ways.items():
        if options.only not in name:
            continue
        run = make()
        run(batch)
        cpu, wall = [], []
        for _ in range(options.repetitions):
            start = time.process_time(), time.perf_counter()
            run(batch)
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
        rate = len(batch.tokens) / median(cpu)
        first = first or rate
        print(
            f"  {name:<24} {rate:6.0f} tokens per CPU second ({rate / first:.2f}x), "
            f"{median(wall):.1f} s a pass"
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
