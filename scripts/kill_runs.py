"""Runs that are killed at random moments and resumed until they are done, against undisturbed ones.

    scripts/test-kills [--kills 3] [--ranks 1 2] [--seed 0]

Every run must end with the weights of the undisturbed run, bit by bit, and with its episodes and
metrics; there, entropies and log-probabilities that the engine reports may differ by rounding. A
kill is SIGKILL to all processes of the run at once, as when a machine loses power; on several
ranks, every second one is to one rank alone, after which torchrun has to end the others.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent
RUN = (
    *("epo", "--world", "hotter", "--env-args", "high", "8", "--seed", "3"),
    *("--steps", "4", "--save-every", "1", "--tasks-per-step", "4"),
    *("--panel.tasks", "4", "--panel.episodes", "2"),
    *("--imitation.max-steps", "20", "--imitation.demos-per-task", "1"),
    *("--scratch.hidden-size", "32", "--scratch.num-layers", "1", "--scratch.vocab-size", "400"),
    *("--scratch.num-heads", "2", "--scratch.num-kv-heads", "1"),
    *("--rollout.max-turns", "6", "--rollout.max-completion-tokens", "8"),
    *("--rollout.max-context-tokens", "256"),
)
CLOCK = re.compile(r"^time|tokens_per_second|seconds")
"""In the names of what depends on the clock."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is tried."""

    kills: int = 3
    """Kills per number of ranks; a run that is done before its share starts again."""
    ranks: tuple[int, ...] = (1, 2)
    """Numbers of ranks."""
    save_async: bool = False
    """Write checkpoints while training goes on."""
    seed: int = 0
    """Of the moments."""


@dataclass(frozen=True)
class Runs:
    """How runs on a number of ranks are started."""

    ranks: int
    save_async: bool

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """A run in a folder, or what is left of it; its processes are a group of their own."""
        launcher = [
            *("-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
        ]
        words = ["--resume", str(folder)]
        if not (folder / "config.yaml").is_file():
            words = [*RUN, *(["--save-async"] if self.save_async else []), "--out", str(folder)]
        paths = [ROOT, ROOT / "envs", ROOT / "trainers"]
        environment = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [
                *(sys.executable, *(launcher if self.ranks > 1 else [])),
                *("-m", "agentgym", "train", *words),
            ],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def resume(self, folder: Path, seconds: float | None, victim: int | None = None) -> bool:
        """Start or continue a run; whether it came to its end.

        Args:
            folder: Of the run.
            seconds: After which it is killed; None: never.
            victim: The rank that is killed; None: all processes.
        """
        run = self.start(folder)
        try:
            _, errors = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            ranks = [] if victim is None else _children(run.pid)
            if victim is not None and len(ranks) == self.ranks:
                os.kill(ranks[victim], signal.SIGKILL)
                # Torchrun ends the others.
                run.communicate(timeout=120)
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.communicate()
            return False
        except BaseException:
            os.killpg(run.pid, signal.SIGKILL)
            raise
        if run.returncode:
            sys.exit(f"a run on {self.ranks} ranks failed:\n{errors.decode()[-2000:]}")
        return True


def _children(parent: int) -> list[int]:
    """Process ids of the ranks of a launcher; empty once it has ended."""
    try:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def result(folder: Path) -> dict[str, Any]:
    """What a run must end with: weights, episodes, metrics."""
    return {
        "weights": _weights(folder / "checkpoints" / "final"),
        "episodes": _lines(folder / "episodes.jsonl"),
        "metrics": _lines(folder / "metrics.jsonl"),
        # Of an evaluation that was interrupted, the order is another one.
        "evaluation": sorted(_lines(folder / "eval" / "after.jsonl"), key=_place),
    }


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal but for the rounding of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-5)
    return bool(one == other)


def _weights(checkpoint: Path) -> dict[str, Any]:
    weights: dict[str, torch.Tensor] = {}
    for file in checkpoint.glob("*.safetensors"):
        weights |= load_file(file)
    return {name: weight.tolist() for name, weight in sorted(weights.items())}


def _lines(file: Path) -> list[Any]:
    return [_untimed(json.loads(line)) for line in file.read_text().splitlines()]


def _place(line: dict[str, Any]) -> tuple[str, int]:
    return line.get("task", ""), line.get("sample", 0)


def _untimed(value: Any) -> Any:
    """Without what depends on the clock, and the name of the folder."""
    if isinstance(value, dict):
        kept = (name for name in value if not CLOCK.search(name) and name != "name")
        return {name: _untimed(value[name]) for name in kept}
    return [_untimed(each) for each in value] if isinstance(value, list) else value


def try_kills(runs: Runs, options: Options, scratch: Path) -> None:
    """Kill runs on so many ranks; ends the program where a result differs."""
    rng = random.Random(f"{options.seed}/{runs.ranks}")
    begin = time.monotonic()
    runs.resume(scratch / "undisturbed", None)
    whole, expected = time.monotonic() - begin, result(scratch / "undisturbed")
    if expected["weights"] == _weights(scratch / "undisturbed" / "checkpoints" / "warm"):
        sys.exit("the run learns nothing, so that it shows nothing")
    print(f"{runs.ranks} ranks: undisturbed in {whole:.0f} s", flush=True)
    kills = 0
    while kills < options.kills:
        folder, done = scratch / f"killed-after-{kills}", False
        while not done:
            victim = rng.randrange(runs.ranks) if runs.ranks > 1 and kills % 2 else None
            seconds = rng.uniform(0, whole) if kills < options.kills else None
            done = runs.resume(folder, seconds, victim)
            kills += not done
        found = result(folder)
        different = [name for name in expected if not alike(found[name], expected[name])]
        if found["weights"] != expected["weights"]:
            different.append("bits of the weights")
        if different:
            sys.exit(f"{folder}: other {', '.join(different)} than {scratch / 'undisturbed'}")
        shutil.rmtree(folder)
    print(f"{runs.ranks} ranks: {kills} kills, every run ended as the undisturbed one", flush=True)


def main(options: Options) -> None:
    """Each number of ranks in turn."""
    for ranks in options.ranks:
        scratch = Path(tempfile.mkdtemp(prefix="kills-"))
        try_kills(Runs(ranks, options.save_async), options, scratch)
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
