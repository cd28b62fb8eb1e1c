"""What `scripts/reproduce` is asked for, and the runs that this takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reproduce_arms import ARMS, PANELS
from reproduce_records import Key, Record, RecordFile, check_same
from reproduce_runs import Run
from reproduce_study import Study

from agentgym.settings import Experiment, ImitationSettings

BUDGET = 20_000
"""Turns in the world that a run takes."""
RATES = (1e-4, 2e-4, 4e-4, 8e-4)
"""Learning rates that every arm tries."""
SWEEP_SEED = 100
"""Of the runs of the sweep; those of the table have seeds from 0."""


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
    """Where records, table, figure and, in `runs`, the runs go."""
    warm: Path | None = None
    """Checkpoint that all begin with; unless given, OUT/warm, which is made where it is missing."""
    seeds: int = 5
    """Runs of each arm; they differ in tasks and draws, not in the checkpoint they begin with."""
    rates: tuple[float, ...] = RATES
    """Learning rates of the sweep; with a single one there is none."""
    jobs: int = 1
    """Runs at a time, 1 or 2."""
    arms: tuple[str, ...] = tuple(ARMS)
    """Which of them."""
    readme: Path | None = None
    """Put the table, and a link to the figure, into this file, between its lines
    `<!-- reproduce NAME -->` and `<!-- /reproduce NAME -->`; NAME is that of the folder OUT."""
    only_report: bool = False
    """Write table and figure from what there is, and train nothing."""
    run: Experiment
    """Length and panel of a run, and all else; its model and seed are set here."""

    @property
    def records(self) -> RecordFile:
        """What its runs found."""
        return RecordFile(self.out / "records.jsonl")


@dataclass(frozen=True)
class Plan:
    """The runs of a study, with their settings, and what those that are done found."""

    options: Options
    warm: Path
    found: Mapping[Key, Record]

    def runs(self) -> list[Run]:
        """Those of the table, seed by seed, so that what there is can be compared at any time."""
        rates = {arm: self.rate(arm) for arm in self.options.arms}
        return [
            self._run(self.options.run, Path(), arm, seed, rate)
            for seed in range(self.options.seeds)
            for arm, rate in rates.items()
            if rate is not None
        ]

    def trials(self, arm: str) -> list[Run]:
        """Those of an arm on the valid split, by rate; none where there is nothing to choose."""
        run, rates = self.options.run, self.options.rates
        valid = replace(run, panel=replace(run.panel, split="valid"))
        return [
            self._run(valid, Path("sweep") / f"{rate:g}", arm, SWEEP_SEED, rate)
            for rate in rates
            if len(rates) > 1
        ]

    def rate(self, arm: str) -> float | None:
        """The best learning rate of an arm; None while its sweep is not over."""
        trials = [self.found.get(trial.key) for trial in self.trials(arm)]
        success = [_success(trial) for trial in trials if trial is not None]
        return best_rate(self.options.rates, success) if len(success) == len(trials) else None

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Those that are not done.

        Raises:
            ConfigError: One is done with another setting of its algorithm.
        """
        for run in runs:
            if held := self.found.get(run.key):
                check_same(self.options.records.path, run.key, held, run.algo)
        return [run for run in runs if run.key not in self.found]

    def study(self) -> Study:
        """What the report reads."""
        options, found = self.options, self.found
        done = [(run, found[run.key]) for run in self.runs() if run.key in found]
        return Study(
            env=options.run.env,
            split=options.run.panel.split,
            against={arm: ARMS[arm].against for arm in options.arms},
            panels=PANELS,
            rates={arm: self.rate(arm) for arm in options.arms},
            found={
                arm: {run.seed: record for run, record in done if run.arm == arm and record.after}
                for arm in options.arms
            },
            stopped={
                arm: sum(run.arm == arm and bool(record.stopped) for run, record in done)
                for arm in options.arms
            },
            sweep={
                arm: {t.key.rate: found[t.key] for t in trials if t.key in found}
                for arm in options.arms
                if (trials := self.trials(arm))
            },
        )

    def _run(self, base: Experiment, where: Path, arm: str, seed: int, rate: float) -> Run:
        name = arm.replace(": ", "-").replace(" ", "-")
        root = self.options.out / "runs" / where / f"{name}-seed{seed}"
        paced = replace(base.optimizer, learning_rate=rate)
        own = ImitationSettings(max_steps=0)
        settings = replace(base, model=str(self.warm), imitation=own, optimizer=paced, seed=seed)
        return Run(arm, seed, root, settings)


def best_rate(rates: Sequence[float], success: Sequence[float]) -> float:
    """The rate with the highest success; of equals, the lowest; the only one where there is one."""
    if len(rates) == 1:
        return rates[0]
    return min(zip(rates, success, strict=True), key=lambda pair: (-pair[1], pair[0]))[0]


def _success(trial: Record) -> float:
    """Share of its episodes that were won; -1 if it stopped."""
    return sum(trial.after) / len(trial.after) if trial.after else -1.0
