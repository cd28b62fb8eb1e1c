"""Kill parts of a cluster in the middle of a run, and compare its result with the undisturbed one.

scripts/test-cluster                     every fault once
scripts/test-cluster --fault player      one of them
scripts/test-cluster --chaos 10          ten minutes of random faults
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster_processes import Loopback

FAULTS = ("world", "player", "engine", "broadcast", "trainer", "node", "head")
"""``broadcast`` is an engine that gets its weights by broadcast."""
TIMED = re.compile(r"^time/|^cluster/|tokens_per_second|^attempts/")
"""Metrics of the clock and of the faults themselves."""
SPENT = re.compile(rf"{TIMED.pattern}|^spent/")
"""The same where an environment dies: what its player spent on the attempt counts."""
STEPS = "100000"
"""Of a chaotic run, which is stopped before."""
FAULT_LINE = re.compile(r"(player|engine|a rank|the r|a broadcast)\w* .*(died|back|noticed|broke)")
"""A line of a run about a death or a replacement."""
# Sizes at which the local engine does not round by what else is in flight; after the warm-up most
# actions are valid, and rewards vary.
MODEL = (
    "--scratch.hidden-size 64 --scratch.num-heads 4 --scratch.num-kv-heads 2 "
    "--scratch.intermediate-size 128 --imitation.demos-per-task 1 --imitation.max-steps 150 "
    "--imitation.batch-size 8 --imitation.until-success 1"
)
RUN = (
    "--world hotter --env-args high 8 --tasks-per-step 8 --save-every 1 --panel.tasks 2 "
    "--panel.episodes 1 --rollout.max-completion-tokens 8 --rollout.max-context-tokens 1024 "
    "--rollout.workers 1 --optimizer.learning-rate 4e-4 --seed 3"
)


class Job:
    """`agentgym train` in a process of its own; its lines go to a file, which cannot fill up."""

    def __init__(self, *words: str | Path) -> None:
        self._lines = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentgym", "train", *map(str, words)],
            stdout=self._lines,
            stderr=subprocess.STDOUT,
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def wait(self) -> str:
        """Everything it has printed, after its end."""
        self.process.wait()
        self._lines.seek(0)
        return self._lines.read()

    def stop(self) -> None:
        """End it now."""
        self.process.terminate()
        self.process.wait()


def on(cluster: Loopback, *, engines: int, sync: str = "store") -> list[str]:
    """Options of a run on a cluster."""
    words = f"--cluster.address {cluster.address} --cluster.players 2 --cluster.engines {engines}"
    return [*words.split(), "--cluster.sync", sync]


def taken(run: Path) -> int:
    """Training steps in the metrics of a run."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def result(run: Path, without: re.Pattern[str]) -> tuple[object, ...]:
    """What must not depend on faults: episodes, metrics but for some, weights."""
    lines = (run / "episodes.jsonl").read_text().splitlines()
    episodes = [
        (each["task"], each["sample"], [(t["action"], t["observation"]) for t in each["turns"]])
        for each in map(json.loads, lines)
    ]
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    metrics = [str({k: v for k, v in row.items() if not without.search(k)}) for row in rows]
    return episodes, metrics, (run / "checkpoints/final/model.safetensors").read_bytes()


def compare(run: Path, reference: Path, without: re.Pattern[str]) -> str:
    """Whether the results of two runs are the same, in words."""
    names = "episodes", "metrics", "weights"
    pairs = zip(names, result(run, without), result(reference, without), strict=True)
    other = [name for name, mine, theirs in pairs if mine != theirs]
    if not other:
        return "same episodes, metrics and weights"
    return f"DIFFERENT {', '.join(other)} ({', '.join(differing(run, reference, without))})"


def differing(run: Path, reference: Path, without: re.Pattern[str]) -> list[str]:
    """Steps and names of the metrics that differ."""
    files = (each / "metrics.jsonl" for each in (run, reference))
    rows = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    return [
        f"{step} {name}: {mine[name]} {theirs.get(name)}"
        for step, (mine, theirs) in enumerate(zip(*rows, strict=False), 1)
        for name in mine
        if not without.search(name) and str(mine[name]) != str(theirs.get(name))
    ]


def wait_for_step(run: Path, job: Job, step: int) -> None:
    """Wait until a run has taken so many steps and is within the next one."""
    while taken(run) < step:
        if job.ended:
            raise SystemExit(f"the run ended early:\n{job.wait()[-3000:]}")
        time.sleep(0.1)
    time.sleep(0.5)


def disturbed(fault: str, cluster: Loopback, words: list[str], out: Path, steps: int) -> str:
    """A run with a fault in its second step; what its lines say about it."""
    engines = 2 if fault in ("engine", "broadcast") else 0
    placed = on(cluster, engines=engines, sync="broadcast" if fault == "broadcast" else "store")
    job = Job(*words, "--steps", str(steps), "--out", out, *placed)
    wait_for_step(out, job, 1)
    died = time.monotonic()
    cluster.faults(random.Random(0))[fault]()
    text = job.wait()
    if fault == "head":
        ended = time.monotonic()
        cluster.cluster.shutdown()
        cluster.start()
        while True:  # A rank that outlives the head holds the folder for some seconds.
            job = Job("--resume", out, "--cluster.address", cluster.address)
            text = job.wait()
            if "is in use" not in text:
                break
        text += f"\nthe run noticed after {ended - died:.1f} s and was resumed"
    if job.process.returncode:
        raise SystemExit(f"the run failed:\n{text[-3000:]}")
    lines = [line for line in text.splitlines() if FAULT_LINE.match(line)]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    lines.append(", ".join(f"{n}: {v:g}" for n, v in last.items() if n.startswith("cluster/")))
    return "\n".join(f"    {line[:160]}" for line in lines)


def chaos(
    minutes: float, rate: float, seed: int, sync: str, words: list[str], folder: Path
) -> bool:
    """A long run in which every step has a fault with probability ``rate``."""
    rng, cluster, out = random.Random(seed), Loopback(), folder / "chaos"
    placed = on(cluster, engines=1 if sync == "store" else 2, sync=sync)
    job = Job(*words, "--steps", STEPS, "--out", out, *placed)
    kinds = [kind for kind in FAULTS if kind not in ("broadcast", "trainer", "head")]
    counts, memory, seen = dict.fromkeys(kinds, 0), [], 0
    wait_for_step(out, job, 1)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        if job.ended:
            raise SystemExit(f"the run ended:\n{job.wait()[-3000:]}")
        if taken(out) > seen:
            seen = taken(out)
            memory.append(cluster.megabytes())
            if rng.random() < rate:
                kind = rng.choice(kinds)
                counts[kind] += 1
                cluster.faults(rng)[kind]()
        time.sleep(0.1)
    job.stop()
    left = cluster.end()
    steps, calm = taken(out), folder / "calm"
    # With the same number of steps ahead, on which the learning rate depends.
    job = Job(*words, "--steps", STEPS, "--out", calm)
    wait_for_step(calm, job, steps)
    job.stop()
    rewards = [scores(run, steps) for run in (out, calm)]
    means = [sum(each) / len(each) for each in rewards]
    spread = (sum((x - means[1]) ** 2 for x in rewards[1]) / len(rewards[1]) ** 2) ** 0.5
    third = max(1, len(memory) // 3)
    level = [sum(part) / len(part) for part in (memory[:third], memory[-third:])]
    print(f"{minutes:g} minutes, {steps} steps, faults {counts}")
    print(f"memory {level[0]:.0f} MB in the first third, {level[1]:.0f} MB in the last")
    print(f"processes left: {len(left)}")
    print(f"reward {means[0]:.4f}, undisturbed {means[1]:.4f}, standard error {spread:.4f}")
    return not left and abs(means[0] - means[1]) <= spread + 1e-12


def scores(run: Path, steps: int) -> list[float]:
    """Mean reward of the episodes of every step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()[:steps]
    return [json.loads(line)["episode/reward"] for line in lines]


def main() -> int:
    """Run the chosen faults; 1 when a result differs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--fault", choices=FAULTS, action="append", help="default: all")
    options.add_argument("--steps", type=int, default=3, help="training steps of a run")
    options.add_argument("--chaos", type=float, help="minutes of random faults instead")
    options.add_argument("--rate", type=float, default=0.2, help="chaos: faults per step")
    options.add_argument("--sync", choices=("store", "broadcast"), default="store", help="chaos")
    options.add_argument("--seed", type=int, default=0, help="chaos: which faults")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentgym-cluster-") as name:
        folder = Path(name)
        made = folder / "made"
        Job("epo", *RUN.split(), *MODEL.split(), "--steps", "0", "--out", made).wait()
        words = ["epo", *RUN.split(), "--model", str(made / "checkpoints/warm")]
        if given.chaos:
            return 0 if chaos(given.chaos, given.rate, given.seed, given.sync, words, folder) else 1
        calm = folder / "calm"
        Job(*words, "--steps", str(given.steps), "--out", calm).wait()
        different = 0
        for fault in given.fault or FAULTS:
            cluster = Loopback()
            report = disturbed(fault, cluster, words, folder / fault, given.steps)
            found = compare(folder / fault, calm, SPENT if fault == "world" else TIMED)
            left = cluster.end()
            different += found.startswith("DIFFERENT") or bool(left)
            print(f"{fault}: {found}; processes left: {len(left)}\n{report}", flush=True)
    return 1 if different else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
