"""`agentgym probe`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse
from agentgym.errors import ConfigError
from agentgym.experiment.plan import load_plan
from agentgym.experiment.presets import pretrained_rollout
from agentgym.settings import (
    WORLD,
    AgentSettings,
    Experiment,
    OptimizerSettings,
    PanelSettings,
    Precision,
    RolloutSettings,
    Value,
)
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class ProbeArguments:
    """Estimate what every turn of an episode was worth, by playing on from it many times.

    The value of a state is the success of continuations by a policy, here with a 95 % interval. The
    change of the value by a turn is the turn's advantage, without a critic and without a baseline:
    ground truth for methods that assign credit. The turn with the largest clear change is where the
    episode was won or lost.

        agentgym probe RUN/checkpoints/final                     # fresh episodes of the panel
        agentgym probe RUN/checkpoints/warm --episodes RUN/eval/before.jsonl
        agentgym probe A --episodes A.jsonl --with B             # where B would have done better

    `--with B` continues A's episodes with model B from every turn: where B's value falls, A threw
    away what B would have won. Environments that fork copy their state; others replay the actions.
    Values are written beside the episodes, as FILE.values.jsonl, and `agentgym view` shows them.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The model that plays and continues: a checkpoint of a run, with the settings of its run, or a
    Hugging Face folder or hub id."""
    episodes: Path | None = None
    """Recorded episodes, such as RUN/eval/before.jsonl; unset: the panel is played first."""
    with_: Annotated[str | None, tyro.conf.arg(name="with")] = None
    """Another model, which continues the episodes instead."""
    first: int | None = None
    """Probe so many episodes, task by task; unset: all."""
    half_width: float = 0.05
    """Half width of the intervals to reach. Halving it takes four times as many continuations."""
    most: int = 500
    """Continuations from one state, at most."""
    processes: int | None = None
    """Processes that play; unset: one per core for our own engine on the CPU, else one."""
    out: Path | None = None
    """File of the values; unset: beside the episodes."""
    quiet: bool = False
    """Show the result and warnings only, no progress."""
    env: str = WORLD
    """Environment id, short name, or `file.py:ClassName`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`."""
    precision: Precision = "auto"
    """Precision of computation."""
    seed: int = 0
    """Root of every random choice."""
    panel: PanelSettings = field(default_factory=PanelSettings)
    """Which tasks are played, and how often, where no episodes are given."""
    rollout: RolloutSettings = field(default_factory=pretrained_rollout)
    """How episodes are played."""
    agent: AgentSettings = field(default_factory=AgentSettings)
    """How the agent reads and writes."""


_SHARED = ("env", "env_args", "model", "seed", "panel", "rollout", "agent")
"""Options that are fields of ``Experiment``."""


def probe(arguments: list[str]) -> int:
    """``probe MODEL [options]``."""
    options = parse(ProbeArguments, arguments, prog="agentgym probe", default=_default(arguments))
    from agentgym.experiment.preflight import check
    from agentgym.experiment.probe import Probe, probe_blocking
    from agentgym.probe.continuations import Effort
    from agentgym.probe.summary import summary

    if options.first is not None and options.first < 1:
        raise ConfigError(f"first is {options.first}, expected at least 1")
    if options.processes is not None and options.processes < 1:
        raise ConfigError(f"processes is {options.processes}, expected at least 1")
    experiment = Experiment(
        **{name: getattr(options, name) for name in _SHARED},
        optimizer=OptimizerSettings(precision=options.precision),
        batch_invariant=False,
    )
    effort = Effort(half_width=options.half_width, most=options.most)
    if options.episodes is not None and not options.episodes.is_file():
        raise ConfigError(f"no file of episodes at {options.episodes}")
    check(experiment)
    if options.with_ is not None:
        check(replace(experiment, model=options.with_))
    wanted = Probe(
        experiment=experiment,
        episodes=options.episodes,
        continue_with=options.with_,
        first=options.first,
        out=options.out,
        effort=effort,
        processes=options.processes,
    )
    display = Display(Console(), quiet=options.quiet)
    try:
        found = probe_blocking(wanted, display)
    except KeyboardInterrupt:
        return 130
    counts = {"states": found.states, "continuations": found.continuations}
    table = summary(found.episodes, **counts, policy=found.policy, note=found.note)
    display.say(table.text())
    display.say(f"values: {found.path}")
    return 0


def _default(words: list[str]) -> ProbeArguments | None:
    """The settings of the run of which a checkpoint is named; else None."""
    from agentgym.experiment.run_folder import RunFolder

    model = words[0] if words and not words[0].startswith("-") else ""
    folder = RunFolder.of_checkpoint(Path(model)) if model else None
    if folder is None:
        return None
    run = load_plan(folder.config).experiment
    held = {f.name: getattr(run, f.name) for f in fields(Experiment) if f.name in _SHARED}
    return ProbeArguments(**{**held, "model": model, "precision": run.optimizer.precision})
