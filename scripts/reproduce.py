"""Do the methods learn, and is it what they add? All of them from one warm-up, seed by seed.

    scripts/reproduce [--world alfworld] [--out FOLDER] [--warm FOLDER] [--seeds 3] [--jobs 1]
                      [--arms grpo epo ...]

Every arm trains from the same checkpoint until it has taken the same number of turns in the world,
with each seed; its last checkpoint, no other, plays the frozen panel. Controls are methods without
what they claim to add. A run that is done is not done again, one that was cut off continues; after
each, OUT/table.md and OUT/curves.png are written again. `--world` is any world, by its recipe.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import tyro
from reproduce_report import Study, write_readme, write_report
from rich.console import Console

from agentgym.errors import AgentGymError, ConfigError, TrainingError, did_you_mean
from agentgym.experiment.api import load_recipe
from agentgym.experiment.job import Job, run_blocking, run_info
from agentgym.experiment.preflight import check
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.warm_start import warm_up
from agentgym.settings import Experiment, ImitationSettings
from agentgym.utils import yaml_config
from agentgym.utils.jsonl import write_atomic
from agentgym.utils.progress import Display
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.arpo import ARPO
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.empg import EMPG
from agentgym_trainers.epo import EPO
from agentgym_trainers.gigpo import GiGPO
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO
from agentgym_trainers.spear import SPEAR

STEPS = 16
"""Training steps that a run is worth, for schedules."""
BUDGET = 20_000
"""Turns in the world that a run takes."""
RATE = 2e-4
"""GRPO's learning rate: of 2e-4 and 4e-4, which did equally well on the valid split, the lower."""
SLOW = 0.25
"""Dr.BoT's in units of it: of 1/4, 1/2 and 1 the only one with which it gained. Its loss is a sum
over tokens, and most tokens are those of long failures."""


class Arm(NamedTuple):
    """What is trained, and what it is compared with."""

    algorithm: str
    """Registered name."""
    config: Any
    against: tuple[str, ...] = ()
    """Other arms: what it builds on, and controls."""
    pace: float = 1.0
    """Learning rate in units of GRPO's."""


ARMS: dict[str, Arm] = {
    "grpo": Arm("grpo", GRPO()),
    "epo": Arm("epo", EPO(), ("grpo", "epo: bonus alone")),
    "empg": Arm("empg", EMPG(), ("grpo", "empg: centring alone", "empg: permuted weights")),
    "aepo": Arm("aepo", AEPO(), ("grpo", "arpo", "aepo: random branching")),
    "dr-bot": Arm("dr-bot", DrBoT(), ("grpo",), SLOW),
    "spear": Arm(
        "spear",
        SPEAR(),
        ("dr-bot", "spear: self-imitation alone"),
        SLOW,
    ),
    "arpo": Arm("arpo", ARPO(), ("grpo",)),
    "epo: bonus alone": Arm("epo", EPO(smoothing_weight=0.0), ("grpo",)),
    "empg: centring alone": Arm("empg", EMPG.control(), ("grpo",)),
    "empg: permuted weights": Arm("empg", EMPG(scaling_order="permuted"), ("grpo",)),
    "aepo: random branching": Arm(
        "aepo",
        AEPO(root_allocation="fixed", entropy_weight=0.0, branch_penalty=0.0),
        ("grpo", "arpo"),
    ),
    "spear: self-imitation alone": Arm("spear", SPEAR(acting_reward=0.0), ("dr-bot",), SLOW),
    "dapo": Arm("dapo", DAPO(), ("grpo",)),
    "ppo": Arm("ppo", PPO(), ("grpo",)),
    "gigpo": Arm("gigpo", GiGPO(), ("grpo",)),
}
"""In the order of their runs. Controls hold back one piece: the corridor of EPO; which step gets
which weight in EMPG, or all but its centring over steps (k = zeta = 0); the reward for acting in
SPEAR; and in AEPO the scout and the look at entropy, so that paths fork by a constant chance."""

PANELS = {
    "EPO": ("epo", "epo: bonus alone", "grpo"),
    "EMPG": ("empg", "empg: centring alone", "empg: permuted weights", "grpo"),
    "SPEAR": ("spear", "spear: self-imitation alone", "dr-bot"),
    "AEPO": ("aepo", "aepo: random branching", "arpo", "grpo"),
    "baselines": ("grpo", "dapo", "ppo", "dr-bot", "gigpo"),
}
"""What is drawn together."""

WORLD = "alfworld"
"""What they are trained in, unless another is named."""


def profile(world: str) -> Experiment:
    """A world's recipe, in a run of about sixteen steps of 64 episodes.

    The learning rate is constant, for the number of steps that a budget of turns is worth differs
    between arms.
    """
    base = load_recipe(world)
    return replace(
        base,
        steps=1000,
        max_env_steps=BUDGET,
        tasks_per_step=8,
        optimizer=replace(base.optimizer, learning_rate=RATE, final_lr_ratio=1.0),
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run."""

    out: Path = Path("runs/reproduce")
    """Where runs, table and figure go."""
    warm: Path | None = None
    """Checkpoint that all begin with; unless given, one is made in OUT/warm."""
    seeds: int = 3
    """Runs of each arm; they differ in tasks and draws, not in the checkpoint they begin with."""
    jobs: int = 1
    """Runs at a time, 1 or 2."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Which of them."""
    readme: Path | None = None
    """Put table and figure into this file too, between its lines `<!-- reproduce -->`."""
    only_report: bool = False
    """Write table and figure from what there is, and train nothing."""
    run: Experiment
    """Length and panel of a run, and all else; its model and seed are set here."""


class Run(NamedTuple):
    """One training run."""

    arm: str
    seed: int
    root: Path
    experiment: Experiment

    @property
    def folder(self) -> RunFolder:
        """Where it goes."""
        return RunFolder(self.root)


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Where a run goes; arms have names for people."""
    return out / f"{arm.replace(': ', '-').replace(' ', '-')}-seed{seed}"


def plan(options: Options, warm: Path) -> list[Run]:
    """The runs, seed by seed, so that what there is can be compared at any time."""
    base = replace(options.run, model=str(warm), imitation=ImitationSettings(max_steps=0))

    def experiment(arm: str, seed: int) -> Experiment:
        how = base.optimizer
        paced = replace(how, learning_rate=how.learning_rate * ARMS[arm].pace)
        return replace(base, seed=seed, optimizer=paced)

    return [
        Run(arm, seed, folder_of(options.out, arm, seed), experiment(arm, seed))
        for seed in range(options.seeds)
        for arm in options.arms
    ]


def make_warm(options: Options, display: Display) -> Path:
    """The checkpoint that all begin with."""
    if options.warm is not None:
        return options.warm
    folder = RunFolder(options.out / "warm")
    if not folder.warm.exists():
        job = Job(options.run, folder, display)
        job.prepare()
        asyncio.run(warm_up(job))
    return folder.warm


def train(run: Run) -> str:
    """Train and evaluate, or continue that; reports how long it took, or why it stopped.

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
        share_before(run)
        display = Display(Console(file=log, width=120))
        info = replace(run_info(run.experiment), steps=STEPS)
        try:
            run_blocking(run.experiment, arm.config.build(info), run.folder, display)
        except TrainingError as problem:
            return f"stopped: {problem}"
    return f"{(time.monotonic() - began) / 60:.1f} min"


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


def results(runs: list[Run], jobs: int) -> Iterator[tuple[Run, str]]:
    """Train what is missing; yields each run when it is done, with how it went."""
    missing = [run for run in runs if not run.folder.table.exists()]
    if jobs == 1:
        yield from ((run, train(run)) for run in missing)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
        futures = {pool.submit(train, run): run for run in missing}
        for future in as_completed(futures):
            yield futures[future], future.result()


def main(options: Options) -> None:
    """Make the warm-up, train everything, and sum up after every run."""
    if unknown := [name for name in options.arms if name not in ARMS]:
        near = did_you_mean(unknown[0], ARMS)
        raise ConfigError(f"no arm {unknown[0]!r}.{near} Arms: {', '.join(ARMS)}")
    if options.jobs not in (1, 2) or options.seeds < 1:
        raise ConfigError(f"got jobs={options.jobs}, seeds={options.seeds}: expected 1 or 2, >= 1")
    check(options.run)
    display = Display(Console())
    warm = options.out / "none" if options.only_report else make_warm(options, display)
    runs = plan(options, warm)
    study = Study(
        {arm: [run.root for run in runs if run.arm == arm] for arm in options.arms},
        {arm: ARMS[arm].against for arm in options.arms},
        PANELS,
    )
    if not options.only_report:
        left = sum(not run.folder.table.exists() for run in runs)
        display.say(f"{len(runs) - left} of {len(runs)} runs are done; folder: {options.out}")
        began = time.monotonic()
        for number, (run, note) in enumerate(results(runs, options.jobs), start=1):
            eta = (time.monotonic() - began) / number * (left - number) / 60
            place = f"{len(runs) - left + number}/{len(runs)}"
            display.say(f"{place}  {run.arm}, seed {run.seed}: {note}  eta {eta:.0f} min")
            write_report(study, options.out)
    write_report(study, options.out)
    if options.readme is not None:
        write_readme(options.out, options.readme)
    display.say((options.out / "table.md").read_text(encoding="utf-8"))


def asked() -> Options:
    """The command line; which world it names decides what all else is by default."""
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--world", default=WORLD)
    known, rest = first.parse_known_args()
    default = Options(run=profile(known.world))
    simple = (tyro.conf.AvoidSubcommands,)
    return tyro.cli(Options, args=rest, default=default, description=__doc__, config=simple)


if __name__ == "__main__":
    try:
        main(asked())
    except AgentGymError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
