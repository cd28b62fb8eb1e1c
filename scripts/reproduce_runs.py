"""Training runs of `scripts/reproduce`: one after the other, or two at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from reproduce_arms import ARMS
from reproduce_records import Key, Record, record_of
from rich.console import Console

from agentgym.errors import ConfigError, TrainingError
from agentgym.experiment.job import run_blocking, run_info
from agentgym.experiment.run_folder import RunFolder
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display

STEPS = 16
"""Training steps that a run is worth, for schedules."""


class Run(NamedTuple):
    """One training run."""

    arm: str
    seed: int
    root: Path
    experiment: Experiment

    @property
    def key(self) -> Key:
        """Which it is among the records."""
        settings = self.experiment
        return Key(self.arm, self.seed, settings.optimizer.learning_rate, settings.panel.split)

    @property
    def algo(self) -> dict[str, Any]:
        """Settings of its algorithm."""
        arm = ARMS[self.arm]
        return {"algorithm": arm.algorithm, **yaml_config.encode(arm.config)}

    @property
    def folder(self) -> RunFolder:
        """Where it goes."""
        return RunFolder(self.root)

    @property
    def stopped(self) -> Path:
        """Why it stopped; exists only then."""
        return self.root / "stopped.txt"


class Outcome(NamedTuple):
    """What came of a run."""

    run: Run
    record: Record
    note: str
    """How long it took, or why it stopped."""


def train(run: Run) -> Outcome:
    """Train and evaluate, or continue that.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """
    began = time.monotonic()
    arm, file = ARMS[run.arm], run.folder.config
    wanted = yaml_config.dump(
        {
            **yaml_config.encode(run.experiment),
            "algorithm": arm.algorithm,
            "algo": yaml_config.encode(arm.config),
        }
    )
    with alone(run.root), (run.root / "log.txt").open("a") as log:
        if not file.exists():
            write_atomic(file, wanted)
        elif file.read_text(encoding="utf-8") != wanted:
            raise ConfigError(f"{run.root} holds a run with other settings: choose another --out")
        if not run.stopped.exists() and not run.folder.table.exists():
            share_before(run)
            display = Display(Console(file=log, width=120))
            info = replace(run_info(run.experiment), steps=STEPS)
            try:
                run_blocking(run.experiment, arm.config.build(info), run.folder, display)
            except TrainingError as problem:
                write_atomic(run.stopped, f"{problem}\n")
    if run.stopped.exists():
        why = run.stopped.read_text(encoding="utf-8").strip()
        return Outcome(run, Record(run.algo, stopped=why), f"stopped: {why}")
    minutes = (time.monotonic() - began) / 60
    return Outcome(run, record_of(run.folder, run.algo), f"{minutes:.1f} min")


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait for a process that is still at this run, such as the child of one that was killed."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def share_before(run: Run) -> None:
    """Take over the evaluation of the warm-up from a finished arm with the same seed."""
    mine = run.folder.evaluation("before")
    for table in sorted(run.root.parent.glob(f"*-seed{run.seed}/report.txt")):
        if not mine.exists():
            write_atomic(mine, RunFolder(table.parent).evaluation("before").read_bytes())


def end_with_parent() -> None:
    """In a process of a pool: end when the one that started it does, even if that was killed."""
    parent = parent_process()
    assert parent is not None, "this process was started by another"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def outcomes(runs: list[Run], jobs: int) -> Iterator[Outcome]:
    """Train them; yields each when it is done."""
    if jobs == 1:
        yield from map(train, runs)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
        for future in as_completed([pool.submit(train, run) for run in runs]):
            yield future.result()
