"""Updates and checkpoints of as many ranks as torchrun starts; rank 0 prints the figures as JSON.

python scripts/ranks_update.py update
torchrun --nproc-per-node 2 scripts/ranks_update.py save --repetitions 5
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import torch
import tyro
from bench_cluster import batch

from agentgym.algorithm import Algorithm
from agentgym.distributed.lead import LeadLearner, carry_out_commands
from agentgym.distributed.learner import ShardedLearner
from agentgym.distributed.process_group import join
from agentgym.experiment.checkpoints import Checkpoints
from agentgym.experiment.run_folder import RunFolder
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.settings import ScratchSettings
from agentgym.training.learner import Learner
from agentgym_trainers.grpo import GRPO

LARGE = ScratchSettings(
    hidden_size=768, num_layers=8, num_heads=12, num_kv_heads=4, intermediate_size=2304
)
"""About 60 million parameters: 240 MB of weights, 480 MB of moments."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    what: Annotated[Literal["update", "save"], tyro.conf.Positional]
    """Updates of a small model, or checkpoints of a larger one."""
    repetitions: int = 5
    """Measurements of each figure, of which the median counts."""


def update(learner: Learner, algorithm: Algorithm, options: Options) -> dict[str, float]:
    """Seconds, and processor seconds of this rank, of an update on 8 episodes."""
    rows = learner.observe(batch(tasks=1, turns=8))
    rows = rows.with_(advantage=torch.randn(len(rows.tokens)))
    seconds, cpu = [], []
    for step in range(options.repetitions + 1):
        begin, used = time.perf_counter(), time.process_time()
        learner.update(rows, algorithm.updates[0], step)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    # The first one makes the moments.
    return {"seconds": median(seconds[1:]), "cpu": median(cpu[1:])}


def save(learner: Learner, tokenizer: Any, options: Options) -> dict[str, float]:
    """Seconds that training waits for a checkpoint, at once and in the background."""
    found: dict[str, list[float]] = {"sync": [], "async": [], "written": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch))
        for number in range(options.repetitions):
            for name in ("sync", "async"):
                background = name == "async"
                with Checkpoints(folder, learner, tokenizer, background=background) as checkpoints:
                    state = {"learner": learner.state()}
                    passed = stopwatch()
                    checkpoints.save(folder.step(number), state)
                    found[name].append(passed())
                if background:
                    found["written"].append(passed())
        size = sum(
            file.stat().st_size for file in folder.step(0).parent.rglob("*") if file.is_file()
        )
        kept = len(list(folder.step(0).parent.glob("step-*")))
    return {name: median(values) for name, values in found.items()} | {
        "megabytes": size / kept / 1e6
    }


def stopwatch() -> Callable[[], float]:
    """Seconds since this call."""
    begin = time.perf_counter()
    return lambda: time.perf_counter() - begin


def main(options: Options) -> None:
    """Rank 0 measures; the others do what it sends."""
    ranks = join()
    tokenizer = from_scratch.make_tokenizer(["".join(map(chr, range(97, 123)))] * 3, 300)
    shape = LARGE if options.what == "save" else ScratchSettings()
    policy = Policy(from_scratch.make_model(tokenizer, shape, context=8192, seed=0))
    kind = Learner if ranks is None else LeadLearner if ranks.lead else ShardedLearner
    learner = kind(policy, ranks=ranks)
    algorithm = GRPO(group_size=8).build()
    learner.attach(algorithm)
    if options.what == "save":
        # Moments, without the time that gradients take.
        for parameter in learner.policy.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        learner.optimizer.step()
    if isinstance(learner, ShardedLearner) and ranks is not None and not ranks.lead:
        carry_out_commands(learner, algorithm.updates, ranks)
        return
    if options.what == "update":
        found = update(learner, algorithm, options)
    else:
        found = save(learner, tokenizer, options)
    learner.close()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
