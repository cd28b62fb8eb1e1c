"""Several processes against one, as ratios measured in one run.

    scripts/bench cluster [ranks dealing saving]

ranks: seconds of an update on two ranks (gloo) against one process, on the same cores.
dealing: how evenly micro-batches are dealt to 8 and 64 ranks, computed: the work of one process
    over the ranks' number and the largest share of each step; the goals are 0.9 and 0.5.
saving: seconds that training waits for a checkpoint, written at once and in the background.

What players on a Ray cluster cost and save: `scripts/bench players`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.distributed.process_group import costs, deal, even_microbatches
from agentgym.training.minibatches import microbatches
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

WORKER = Path(__file__).with_name("ranks_update.py")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    parts: Annotated[tuple[str, ...], tyro.conf.Positional] = ("ranks", "dealing", "saving")
    """Names of the measurements."""
    repetitions: int = 5
    """Measurements of each figure, of which the median counts."""


def batch(tasks: int, members: int = 8, turns: int = 30) -> Batch:
    """Groups of episodes of 3 or more turns: a prompt of 500 tokens, then 80 read, 100 written."""
    rng = np.random.default_rng(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(1, 250, count))

    def episode(task: int, sample: int, prompt: tuple[int, ...]) -> Trajectory:
        played = tuple(
            Turn(
                prompt if number == 0 else tokens(80),
                Completion(tokens(100), (-1.0,) * 100, (0.5,) * 100),
                "act",
                "observation",
                0.0,
                fresh=number == 0,
                parsed=True,
            )
            for number in range(rng.integers(3, turns + 1))
        )
        return Trajectory(Task("e", str(task)), sample, "g", "o", played, Stop.TERMINATED, won=True)

    groups = []
    for task in range(tasks):
        prompt = tokens(500)
        groups.append([episode(task, sample, prompt) for sample in range(members)])
    return collate(groups)


def dealing(options: Options) -> Iterator[str]:
    """Efficiency of the ranks' shares, over sizes of micro-batches."""
    rows = batch(tasks=32)
    for tokens in (4096, 16384):
        alone = sum(costs(rows, list(microbatches(rows, tokens, shared=True)), shared=True))
        for size in (8, 64):
            runs = even_microbatches(rows, tokens, size, shared=True)
            cost = costs(rows, runs, shared=True)
            steps = deal(cost, size)
            # The ranks compute in step, so each step lasts as long as its largest share.
            lasts = sum(max(cost[place] for place in step if place is not None) for step in steps)
            yield (
                f"{size:2} ranks, micro-batches of {tokens:5} tokens: {len(runs):3} of them in"
                f" {len(steps):2} steps, efficiency {alone / size / lasts:.2f}"
            )


def ranks(options: Options) -> Iterator[str]:
    """Seconds of an update."""
    one, two = (worker(size, "update", options) for size in (1, 2))
    yield f"one process {one['seconds']:.2f} s an update, CPU {one['cpu']:.2f} s"
    yield (
        f"two ranks   {two['seconds']:.2f} s an update, CPU {two['cpu']:.2f} s each:"
        f" {one['seconds'] / two['seconds']:.2f} x as fast"
    )


def saving(options: Options) -> Iterator[str]:
    """Seconds that training waits for a checkpoint."""
    for size in (1, 2):
        found = worker(size, "save", options)
        yield (
            f"{size} rank{'s' * (size > 1)}, {found['megabytes']:.0f} MB: training waits"
            f" {found['sync']:.2f} s, in the background {found['async']:.2f} s"
            f" ({found['async'] / found['sync']:.0%}), written after {found['written']:.2f} s"
        )


def worker(size: int, what: str, options: Options) -> dict[str, Any]:
    """Figures of ``ranks_update.py`` on so many ranks, one core each."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "--standalone"]
    done = subprocess.run(
        [
            *(sys.executable, *(launcher if size > 1 else [])),
            *(str(WORKER), what, "--repetitions", str(options.repetitions)),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


PARTS = {"ranks": ranks, "dealing": dealing, "saving": saving}


def main(options: Options) -> None:
    """The figures of each part."""
    for name in options.parts:
        if name not in PARTS:
            sys.exit(f"no part {name!r}: expected some of {', '.join(PARTS)}")
        print(f"-- {name}")
        for line in PARTS[name](options):
            print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
