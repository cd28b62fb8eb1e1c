"""Several ranks: the same gradients, metrics, weights and runs as one process.

Slow tests take every registered algorithm on 2 and 4 ranks, and whole runs; the default ones a few
cases. `scripts/test-ranks` runs them all.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from agentgym import plugins
from agentgym.batch.collate import collate
from agentgym.distributed.process_group import deal, even_microbatches
from agentgym.testing.episodes import made_up
from agentgym.training.minibatches import microbatches

ROOT = Path(__file__).parent.parent
VARIANTS = ["grpo+lora", "epo+checkpointing", "siren+checkpointing", "grpo+windowed", "grpo+pieces"]
VARIANTS += ["ppo+offload", "ppo+lora", "epo+untied"]
QUICK = ["epo", "ppo", "grpo+lora"]
TOLERANCE = 1e-5
# Adam divides by the size of the gradient: where it is nearly 0, its rounding is what moves.
LOOSE = {"weights": 1e-3, "metrics": 1e-3, "credit 1": 1e-3}


def torchrun(size: int, *words: str | Path, cwd: Path | None = None) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)),
        *("--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
        *map(str, words),
    ]


def environment() -> dict[str, str]:
    paths = [ROOT, ROOT / "envs", ROOT / "trainers", ROOT / "tests"]
    known = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**known, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}


def equal(size: int, cases: list[str], scratch: Path) -> None:
    done = subprocess.run(
        torchrun(size, ROOT / "tests" / "ranks_worker.py", scratch, *cases),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each["case"] for each in found] == cases, done.stderr[-3000:]
    for each in found:
        case = each.pop("case")
        for name, value in each.items():
            assert value <= LOOSE.get(name, TOLERANCE), (case, size, name, value)


def test_two_ranks_compute_what_one_process_computes(tmp_path):
    equal(2, QUICK, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [2, 4])
def test_every_algorithm_computes_the_same_on_several_ranks(size, tmp_path):
    equal(size, [*sorted(plugins.algorithms()), *VARIANTS], tmp_path)


# ---- micro-batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_steps_of_the_ranks_cover_every_item_once_with_neighbours_in_cost(ranks):
    cost = [5.0, 1.0, 9.0, 8.0, 2.0]
    steps = deal(cost, ranks)
    taken = [place for step in steps for place in step if place is not None]
    assert sorted(taken) == list(range(5))
    assert all(len(step) == ranks for step in steps) and len(steps) == math.ceil(5 / ranks)
    assert [cost[place] for place in taken] == sorted(cost, reverse=True)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_last_step_of_the_ranks_is_full_where_there_are_rows_enough(ranks):
    batch = collate(made_up(0, ((1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0)), windowed=True))
    for tokens in (60, 90, 200):
        usual = list(microbatches(batch, tokens, shared=True))
        runs = even_microbatches(batch, tokens, ranks, shared=True)
        assert sorted(torch.cat(runs).tolist()) == list(range(len(batch)))
        assert len(runs) <= math.ceil(len(usual) / ranks) * ranks
        assert len(runs) % ranks == 0 or len(runs) >= len(usual)


def test_one_rank_has_the_micro_batches_of_one_process():
    batch = collate(made_up(0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), windowed=False))
    usual = list(microbatches(batch, 80, shared=True))
    runs = even_microbatches(batch, 80, 1, shared=True)
    assert [run.tolist() for run in runs] == [run.tolist() for run in usual]


# ---- whole runs ----------------------------------------------------------------------------------

SMALL = [
    "--world",
    "hotter",
    "--tasks-per-step",
    "4",
    "--save-every",
    "1",
    "--imitation.max-steps",
    "4",
    "--panel.tasks",
    "4",
    "--panel.episodes",
    "2",
    "--scratch.hidden-size",
    "32",
    "--scratch.num-heads",
    "2",
    "--scratch.num-kv-heads",
    "1",
    "--rollout.max-completion-tokens",
    "8",
    "--imitation.demos-per-task",
    "1",
]


def numbers(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    timed = re.compile(r"^time/|tokens_per_second|seconds")
    return [{k: v for k, v in json.loads(line).items() if not timed.search(k)} for line in lines]


def actions(run: Path) -> list[list[str]]:
    lines = (run / "episodes.jsonl").read_text().splitlines()
    return [[turn["action"] for turn in json.loads(line)["turns"]] for line in lines]


def train(size: int, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["-m", "agentgym", "train", *words]
    whole = [sys.executable, *command] if size == 1 else torchrun(size, *command)
    return subprocess.run(
        list(map(str, whole)), env=environment(), capture_output=True, text=True, check=False
    )


def same_run(one: Path, other: Path) -> None:
    assert actions(one) == actions(other)
    for step, (mine, theirs) in enumerate(zip(numbers(one), numbers(other), strict=True)):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), (step, name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_two_ranks_is_that_of_one_and_goes_on_at_any_number(tmp_path):
    alone, ranks, mixed = (tmp_path / name for name in ("alone", "ranks", "mixed"))
    for size, out in ((1, alone), (2, ranks)):
        done = train(size, "epo", *SMALL, "--steps", "4", "--save-async", "--out", out)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("run folder") == 1
    same_run(ranks, alone)
    shutil.copytree(alone, mixed)
    for run, size, step in ((mixed, 4, 2), (mixed, 2, 3), (ranks, 1, 2)):
        cut(run, step)
        done = train(size, "--resume", run)
        assert done.returncode == 0, done.stderr[-2000:]
        same_run(run, alone)


def cut(run: Path, step: int) -> None:
    """Remove what came after the checkpoint of a step."""
    for later in run.glob("checkpoints/step-*"):
        if later.name > f"step-{step:04d}":
            shutil.rmtree(later)
    shutil.rmtree(run / "checkpoints" / "final")
    (run / "eval" / "after.jsonl").unlink()
    assert (run / "checkpoints" / f"step-{step:04d}").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mistake_is_one_line_of_one_rank(tmp_path):
    done = train(2, "grpo", "--world", "hotter", "--rollout.temperature", "0", "--out", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("rollout.temperature is 0") == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_dies_ends_the_job_and_the_run_goes_on_from_its_checkpoint(tmp_path):
    out = tmp_path / "run"
    command = torchrun(2, "-m", "agentgym", "train", "grpo", *SMALL, "--steps", "60", "--out", out)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as job:
        deadline = time.monotonic() + 240
        while not list(out.glob("checkpoints/step-*")) and time.monotonic() < deadline:
            assert job.poll() is None
            time.sleep(0.2)
        os.kill(follower(job.pid), signal.SIGKILL)
        assert job.wait(90) != 0
    taken = len(numbers(out))
    assert 1 <= taken < 60
    assert train(1, "--resume", out, "--steps", taken + 1).returncode == 0


def follower(parent: int) -> int:
    """Process id of rank 1."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in variables:
            return int(child)
    raise AssertionError("rank 1 is not running")
