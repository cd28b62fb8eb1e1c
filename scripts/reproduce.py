"""Do the methods learn, and is it what they add? All of them from one warm-up, seed by seed.

    scripts/reproduce [--world alfworld | --config FILE] [--out FOLDER] [--warm FOLDER] [--seeds 5]
                      [--rates 1e-4 2e-4 4e-4 8e-4] [--jobs 1] [--arms grpo epo ...]

Every arm trains from the same checkpoint until it has taken the same number of turns in the world.
First a sweep: every arm runs once at each learning rate and plays the tasks of the valid split; its
best rate is kept, the lower one of two that do equally well. Then it runs at that rate with each
seed; its last checkpoint, no other, plays the frozen panel of the test split. Controls are methods
without what they claim to add. A run that is done is not done again, one that was cut off
continues; after each, OUT/table.md and OUT/curves.png are written again. What they need of a run is
a line of OUT/records.jsonl: with it and the checkpoint in OUT/warm, without OUT/runs, a study goes
on in another place. `--world` is any world, by its recipe; `--config` a YAML file with the settings
of a run.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

import tyro
from reproduce_arms import ARMS
from reproduce_plan import Options, Plan, profile
from reproduce_records import Common
from reproduce_report import write_readme, write_report
from reproduce_runs import Run, outcomes
from rich.console import Console

from agentgym.errors import AgentGymError, ConfigError, did_you_mean
from agentgym.experiment.api import load_recipe
from agentgym.experiment.job import Job
from agentgym.experiment.preflight import check
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.experiment.warm_start import warm_up
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.progress import Display

WORLD = "alfworld"
"""What they are trained in, unless another is named."""


def make_warm(options: Options, display: Display) -> Path:
    """The checkpoint that all begin with."""
    warm = options.warm or options.out / "warm"
    if options.warm is None and not warm.exists():
        folder = RunFolder(options.out / "runs" / "warm")
        if not folder.warm.exists():
            job = Job(options.run, folder, display)
            job.prepare("train", job.panel("train").tasks)
            asyncio.run(warm_up(job))
        partial = warm.with_name(".warm.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder.warm, partial)
        partial.rename(warm)
    return warm


def planned(options: Options, warm: Path) -> Plan:
    """The study as it stands."""
    return Plan(options, warm, options.records.read())


def train_all(plan: Plan, runs: list[Run], what: str, display: Display) -> None:
    """Train what is missing, and sum up after every run."""
    missing, options = plan.missing(runs), plan.options
    done = len(runs) - len(missing)
    display.say(f"{what}: {done} of {len(runs)} runs are done")
    began = time.monotonic()
    for number, (run, record, note) in enumerate(outcomes(missing, options.jobs), start=1):
        options.records.add(run.key, record)
        eta = (time.monotonic() - began) / number * (len(missing) - number) / 60
        place, rate = f"{done + number}/{len(runs)}", run.key.rate
        display.say(f"{place}  {run.arm}, seed {run.seed}, {rate:g}: {note}  eta {eta:.0f} min")
        write_report(planned(options, plan.warm).study(), options.out)


def train_study(options: Options, display: Display) -> None:
    """Make the warm-up, choose learning rates, train everything."""
    display.say(f"folder: {options.out}")
    warm = make_warm(options, display)
    common = Common(fingerprint(warm), yaml_config.encode(options.run))
    options.records.open(common)
    plan = planned(options, warm)
    if trials := [trial for arm in options.arms for trial in plan.trials(arm)]:
        train_all(plan, trials, "sweep", display)
    plan = planned(options, warm)
    train_all(plan, plan.runs(), "table", display)


def main(options: Options) -> None:
    """Train what is missing, unless told not to, and report."""
    if unknown := [name for name in options.arms if name not in ARMS]:
        near = did_you_mean(unknown[0], ARMS)
        raise ConfigError(f"no arm {unknown[0]!r}.{near} Arms: {', '.join(ARMS)}")
    if options.jobs not in (1, 2) or options.seeds < 1 or not options.rates:
        found = f"jobs={options.jobs}, seeds={options.seeds}, {len(options.rates)} rates"
        raise ConfigError(f"got {found}: expected 1 or 2 jobs, a seed and a rate or more")
    check(options.run)
    display = Display(Console())
    if not options.only_report:
        train_study(options, display)
    write_report(planned(options, options.out / "warm").study(), options.out)
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
