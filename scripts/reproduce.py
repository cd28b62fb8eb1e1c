"""Do the methods learn, and is it what they add? All of them from one warm-up, seed by seed.

    scripts/reproduce [--world alfworld | --config FILE] [--out FOLDER] [--warm FOLDER] [--seeds 5]
                      [--rates 1e-4 2e-4 4e-4 8e-4] [--jobs 1] [--arms grpo epo ...]

Every arm trains from the same checkpoint until it has taken the same number of turns in the world.
First a sweep: every arm runs once at each learning rate and plays the tasks of the valid split; its
best rate is kept, the lower one of two that do equally well. Then it runs at that rate with each
seed; its last checkpoint, no other, plays the frozen panel of the test split. Controls are methods
without what they claim to add. A run that is done is not done again, one that was cut off
continues; after each, OUT/table.md and OUT/curves.png are written again. `--world` is any world, by
its recipe; `--config` a YAML file with the settings of a run.
"""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from reproduce_arms import ARMS, PANELS
from reproduce_report import write_readme, write_report
from reproduce_runs import Run, results
from reproduce_study import Study, passed
from rich.console import Console

from agentgym.errors import AgentGymError, ConfigError, did_you_mean
from agentgym.experiment.api import load_recipe
from agentgym.experiment.job import Job
from agentgym.experiment.preflight import check
from agentgym.experiment.run_folder import RunFolder
from agentgym.experiment.warm_start import warm_up
from agentgym.settings import Experiment, ImitationSettings
from agentgym.utils import yaml_config
from agentgym.utils.progress import Display

BUDGET = 20_000
"""Turns in the world that a run takes."""
RATES = (1e-4, 2e-4, 4e-4, 8e-4)
"""Learning rates that every arm tries."""
SWEEP_SEED = 100
"""Of the runs of the sweep; those of the table have seeds from 0."""
WORLD = "alfworld"
"""What they are trained in, unless another is named."""


def profile(base: Experiment) -> Experiment:
    """Settings of a world, in a run of about sixteen steps of 64 episodes.

    The learning rate is constant, for the number of steps that a budget of turns is worth differs
    between arms.
    """
    return replace(
        base,
        steps=1000,
        max_env_steps=BUDGET,
        tasks_per_step=8,
        optimizer=replace(base.optimizer, final_lr_ratio=1.0),
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run."""

    out: Path = Path("runs/reproduce")
    """Where runs, table and figure go."""
    warm: Path | None = None
    """Checkpoint that all begin with; unless given, one is made in OUT/warm."""
    seeds: int = 5
    """Runs of each arm; they differ in tasks and draws, not in the checkpoint they begin with."""
    rates: tuple[float, ...] = RATES
    """Learning rates of the sweep; with a single one there is none."""
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


@dataclass(frozen=True)
class Plan:
    """Where the runs of a study lie, and with which settings."""

    options: Options
    warm: Path

    def run(self, arm: str, seed: int, rate: float) -> Run:
        """One of the table."""
        return self._run(self.options.run, self.options.out, arm, seed, rate)

    def trial(self, arm: str, rate: float) -> Run:
        """One of the sweep: on the valid split."""
        run = self.options.run
        valid = replace(run, panel=replace(run.panel, split="valid"))
        out = self.options.out / "sweep" / f"{rate:g}"
        return self._run(valid, out, arm, SWEEP_SEED, rate)

    def trials(self, arm: str) -> list[Run]:
        """Those of an arm, by rate; none where there is nothing to choose."""
        rates = self.options.rates
        return [self.trial(arm, rate) for rate in rates] if len(rates) > 1 else []

    def rate(self, arm: str) -> float | None:
        """The best learning rate of an arm; None while its sweep is not over."""
        trials = self.trials(arm)
        if not all(trial.over for trial in trials):
            return None
        return best_rate(self.options.rates, [_success(trial) for trial in trials])

    def runs(self, arms: Sequence[str]) -> list[Run]:
        """Those of the table, seed by seed, so that what there is can be compared at any time."""
        rates = {arm: self.rate(arm) for arm in arms}
        return [
            self.run(arm, seed, rate)
            for seed in range(self.options.seeds)
            for arm, rate in rates.items()
            if rate is not None
        ]

    def _run(self, base: Experiment, out: Path, arm: str, seed: int, rate: float) -> Run:
        name = arm.replace(": ", "-").replace(" ", "-")
        paced = replace(base.optimizer, learning_rate=rate)
        own = ImitationSettings(max_steps=0)
        settings = replace(base, model=str(self.warm), imitation=own, optimizer=paced, seed=seed)
        return Run(arm, seed, out / f"{name}-seed{seed}", settings)


def best_rate(rates: Sequence[float], success: Sequence[float]) -> float:
    """The rate with the highest success; of equals, the lowest; the only one where there is one."""
    if len(rates) == 1:
        return rates[0]
    return min(zip(rates, success, strict=True), key=lambda pair: (-pair[1], pair[0]))[0]


def _success(run: Run) -> float:
    """Share of its episodes that were won; -1 if it stopped."""
    return float(passed(run.root, "after").mean()) if run.done else -1.0


def make_warm(options: Options, display: Display) -> Path:
    """The checkpoint that all begin with."""
    if options.warm is not None:
        return options.warm
    folder = RunFolder(options.out / "warm")
    if not folder.warm.exists():
        job = Job(options.run, folder, display)
        job.prepare("train", job.panel("train").tasks)
        asyncio.run(warm_up(job))
    return folder.warm


def study_of(plan: Plan) -> Study:
    """What the report reads."""
    runs, options = plan.runs(plan.options.arms), plan.options
    return Study(
        roots={arm: [run.root for run in runs if run.arm == arm] for arm in options.arms},
        against={arm: ARMS[arm].against for arm in options.arms},
        panels=PANELS,
        rates={arm: plan.rate(arm) for arm in options.arms},
        sweep={
            arm: {rate: trial.root for rate, trial in zip(options.rates, trials, strict=True)}
            for arm in options.arms
            if (trials := plan.trials(arm))
        },
    )


def train_all(plan: Plan, runs: list[Run], what: str, display: Display) -> None:
    """Train what is missing, and sum up after every run."""
    left = sum(not run.over for run in runs)
    display.say(f"{what}: {len(runs) - left} of {len(runs)} runs are done")
    began = time.monotonic()
    for number, (run, note) in enumerate(results(runs, plan.options.jobs), start=1):
        eta = (time.monotonic() - began) / number * (left - number) / 60
        place = f"{len(runs) - left + number}/{len(runs)}"
        rate = run.experiment.optimizer.learning_rate
        display.say(f"{place}  {run.arm}, seed {run.seed}, {rate:g}: {note}  eta {eta:.0f} min")
        write_report(study_of(plan), plan.options.out)


def main(options: Options) -> None:
    """Make the warm-up, choose learning rates, train everything."""
    if unknown := [name for name in options.arms if name not in ARMS]:
        near = did_you_mean(unknown[0], ARMS)
        raise ConfigError(f"no arm {unknown[0]!r}.{near} Arms: {', '.join(ARMS)}")
    if options.jobs not in (1, 2) or options.seeds < 1 or not options.rates:
        found = f"jobs={options.jobs}, seeds={options.seeds}, {len(options.rates)} rates"
        raise ConfigError(f"got {found}: expected 1 or 2 jobs, a seed and a rate or more")
    check(options.run)
    display = Display(Console())
    warm = options.out / "none" if options.only_report else make_warm(options, display)
    plan = Plan(options, warm)
    if not options.only_report:
        display.say(f"folder: {options.out}")
        if trials := [trial for arm in options.arms for trial in plan.trials(arm)]:
            train_all(plan, trials, "sweep", display)
        train_all(plan, plan.runs(options.arms), "table", display)
    write_report(study_of(plan), options.out)
    if options.readme is not None:
        write_readme(options.out, options.readme)
    display.say((options.out / "table.md").read_text(encoding="utf-8"))


def asked() -> Options:
    """The command line; the world or the file that it names decides what all else is by default."""
    first = ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--world", default=WORLD)
    first.add_argument("--config")
    known, rest = first.parse_known_args()
    base = yaml_config.load(Experiment, known.config) if known.config else load_recipe(known.world)
    default = Options(run=profile(base))
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
