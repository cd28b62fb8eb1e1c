"""`agentgym eval`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse, take, take_all
from agentgym.errors import ConfigError
from agentgym.evaluation.stats.intervals import IntervalMethod
from agentgym.experiment.plan import load_plan, recipe_settings
from agentgym.experiment.presets import pretrained_rollout
from agentgym.experiment.sources import Objects, check_objects
from agentgym.settings import (
    WORLD,
    AgentSettings,
    EndpointSettings,
    EngineKind,
    Experiment,
    OptimizerSettings,
    PanelSettings,
    Precision,
    ProgramSettings,
    RolloutSettings,
    UserSettings,
    Value,
)
from agentgym.utils.progress import Display

if TYPE_CHECKING:
    from agentgym.evaluation.report import Report


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Play frozen panels of tasks with a model and report pass@k with 95 % intervals.

    Ways to call it:
        agentgym eval RUN/checkpoints/final                       # the panel of its run
        agentgym eval MODEL --world alfworld --world webshop --k 1 4 8
        agentgym eval MODEL --world alfworld --panel.split valid test --out evals/mine
        agentgym eval oracle --env hotter                         # or random, file.py:function
        agentgym eval replay:human.jsonl --env hotter             # of `agentgym play --record`
        agentgym eval NAME --engine openai --server https://host  # a chat endpoint
        agentgym eval MODEL --against RUN/eval/before.jsonl --card

    A checkpoint of a run is evaluated with the settings of its run, unless options differ;
    `--world NAME` takes environment and settings from a recipe instead, and several of them, or
    several splits, are played one after the other. After an interruption the same command plays
    only the missing episodes.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder, hub id or GGUF file, such as RUN/checkpoints/final; or a policy without
    weights: `oracle`, `random`, `replay:FILE` with recorded actions, or a function of observation
    and info that returns an action, as `file.py:function`. Also as `--model MODEL`."""
    env: str = WORLD
    """Environment id, short name, or `file.py:ClassName`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    tools: tuple[str, ...] = ()
    """Functions that the agent can call in addition to its actions, as `file.py:function` or
    `module:function`."""
    user: UserSettings = field(default_factory=UserSettings)
    """A simulated user, whom the agent asks or talks to."""
    k: tuple[int, ...] = ()
    """The k of pass@k and pass^k; unset: powers of two up to `--panel.episodes`."""
    intervals: IntervalMethod = "analytic"
    """How intervals are computed."""
    card: bool = False
    """Also write a Markdown card beside the file of episodes: what another person needs to
    reproduce the result. `agentgym verify CARD` plays a sample of it again."""
    agent_program: str | None = None
    """Agent program that plays instead of our own agent: a command such as "python my_agent.py",
    which runs once per episode, or a function as `file.py:function`."""
    program: ProgramSettings = field(default_factory=ProgramSettings)
    """How the agent program is run and rewarded."""
    out: Path | None = None
    """File with one JSON line per episode, or a folder for it; unset: evals/. The file is named
    after panel, model and settings."""
    against: Path | None = None
    """Such a file of another model on the same panel, or RUN/eval/before.jsonl: also reports the
    paired difference."""
    quiet: bool = False
    """Show the result and warnings only, no progress."""
    engine: EngineKind = "local"
    """What samples: our own engine, vLLM in this process, a vLLM server, or a chat endpoint."""
    server: str | None = None
    """URL of a running server, without /v1; unset: vllm-server starts one."""
    engine_device: str | None = None
    """Device of the local engine, such as cuda:1; unset: a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of computation. auto: bfloat16 for models of 50 million parameters or more where
    the hardware multiplies in bfloat16, else float32."""
    seed: int = 0
    """Root of every random choice."""
    panel: PanelSettings = field(default_factory=PanelSettings)
    """Which tasks, and how often."""
    rollout: RolloutSettings = field(default_factory=pretrained_rollout)
    """How episodes are played."""
    agent: AgentSettings = field(default_factory=AgentSettings)
    """How the agent reads and writes."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """How a chat endpoint is used; its prices per million tokens hold for every engine."""


_OWN = ("data", "out", "against", "quiet", "precision", "k", "intervals", "card")
_SHARED = tuple(f.name for f in fields(EvalArguments) if f.name not in _OWN)
"""Options that are fields of ``Experiment``."""


class Planned(NamedTuple):
    """One panel to play."""

    options: EvalArguments
    experiment: Experiment


def evaluate(arguments: list[str]) -> int:
    """``eval MODEL [--world NAME ...] [options]``."""
    plans = _plans(list(arguments))
    from agentgym.evaluation.files import read_report
    from agentgym.experiment.evaluations import evaluate_blocking
    from agentgym.experiment.preflight import check

    for plan in plans:
        check(plan.experiment)
    options = plans[0].options
    before = None if options.against is None else read_report(options.against)
    display = Display(Console(), quiet=options.quiet)
    reports: list[Report] = []
    try:
        for plan in plans:
            report = evaluate_blocking(plan.experiment, options.out, display, before)
            reports.append(_finished(report, plan))
            _show(display, reports[-1], before, options)
    except KeyboardInterrupt:
        display.say("stopped; finished episodes are saved, the same command plays the others")
        return 130
    _end(display, reports, before, shlex.join(["agentgym", "eval", *arguments]), options.card)
    return 0


def _plans(rest: list[str]) -> list[Planned]:
    """What a command line asks for: every environment with every split.

    Raises:
        ConfigError: A k exceeds the episodes, or an option fits one panel alone.
    """
    worlds, splits = take_all(rest, "--world"), take_all(rest, "--panel.split")
    if (model := take(rest, "--model")) is not None:
        rest.insert(0, model)
    plans = []
    # An empty name stands for what the run, the recipe or the default chooses.
    for world, split in product(worlds or [""], splits or [""]):
        words = [*rest, "--panel.split", split] if split else rest
        default = _default(rest, world or None)
        options = parse(EvalArguments, words, prog="agentgym eval", default=default)
        experiment = Experiment(
            **{name: getattr(options, name) for name in _SHARED},
            optimizer=OptimizerSettings(precision=options.precision),
        )
        plans.append(Planned(options, experiment))
    first = plans[0].options
    for plan in plans:
        _check_k(plan.options)
    if len(plans) > 1 and first.against is not None:
        raise ConfigError("--against names one panel: leave it out, or evaluate one panel")
    if len(plans) > 1 and first.out is not None and first.out.suffix:
        raise ConfigError(
            f"{len(plans)} panels need a file each: give a folder to `--out`, got {first.out}"
        )
    return plans


def _check_k(options: EvalArguments) -> None:
    for k in options.k:
        if not 1 <= k <= options.panel.episodes:
            raise ConfigError(
                f"--k {k} needs {max(k, 1)} episodes per task, --panel.episodes is "
                f"{options.panel.episodes}: expected k from 1 to {options.panel.episodes}"
            )


def _finished(report: Report, plan: Planned) -> Report:
    from agentgym.experiment.evaluations import prices_of

    return replace(
        report,
        chosen_ks=tuple(sorted(set(plan.options.k))),
        method=plan.options.intervals,
        prices=prices_of(plan.experiment),
    )


def _show(display: Display, report: Report, before: Report | None, options: EvalArguments) -> None:
    """The tables of one panel."""
    from agentgym.evaluation.render import render, types_grid

    if before is None:
        display.say(render(report))
    else:
        names = before.spec.label, report.spec.label
        same = names[0] == names[1]
        display.say(render(report, before, names=("first", "second") if same else names))
    if len(report.task_types) > 1:
        display.say(types_grid(report).text())


def _end(
    display: Display,
    reports: Sequence[Report],
    before: Report | None,
    command: str,
    card: bool,
) -> None:
    """What all panels cost, their summary, and their cards."""
    from agentgym.evaluation.card import card_of
    from agentgym.evaluation.render import cost_summary, summary
    from agentgym.utils.jsonl import write_atomic

    if len(reports) > 1:
        display.say(summary(reports).text())
    display.say(cost_summary(reports).text())
    for report in reports:
        assert report.path is not None, "set by evaluate"
        display.say(f"episodes: {report.path}")
        if card:
            path = report.path.with_suffix(".md")
            write_atomic(path, card_of(report, command))
            display.say(f"card: {path}")


def _default(words: list[str], world: str | None) -> EvalArguments | None:
    """Settings of an environment's recipe, or of the run of a checkpoint; else None."""
    from agentgym.experiment.run_folder import RunFolder

    model = words[0] if words and not words[0].startswith("-") else ""
    folder = RunFolder.of_checkpoint(Path(model)) if model else None
    if world is not None:
        return _arguments(recipe_settings(world, model=model or "given"), model)
    if folder is None:
        return None
    run = load_plan(folder.config).experiment
    if any(word.partition("=")[0] == "--env" for word in words):
        # Arguments of one environment mean nothing to another.
        run = replace(run, env=WORLD, env_args={}, tools=(), user=UserSettings())
    check_objects(replace(run, model=None), Objects())
    return _arguments(run, model)


def _arguments(settings: Experiment, model: str) -> EvalArguments:
    held = {name: getattr(settings, name) for name in _SHARED}
    # Engine and server of a run are not those of its evaluation.
    for name in ("engine", "server", "engine_device"):
        del held[name]
    precision = settings.optimizer.precision
    return EvalArguments(**{**held, "model": model or tyro.MISSING, "precision": precision})
