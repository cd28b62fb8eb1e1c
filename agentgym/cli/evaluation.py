"""`agentgym eval` and `agentgym compare`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agentgym.cli.parsing import parse, take
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
    RolloutSettings,
    Value,
)
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class EvalArguments:
    """Play a frozen panel of tasks with a model and report pass@k with 95 % intervals.

    A checkpoint of a run is evaluated with the settings of its run, unless options differ;
    `--world NAME` takes environment and settings from a recipe instead. After an interruption the
    same command plays only the missing episodes.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder, hub id or GGUF file, such as RUN/checkpoints/final; or a policy without
    weights: `oracle`, `random`, or a function of observation and info that returns an action, as
    `file.py:function`. Also as `--model MODEL`."""
    env: str = WORLD
    """Environment id, short name, or `file.py:ClassName`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    tools: tuple[str, ...] = ()
    """Functions that the agent can call in addition to its actions, as `file.py:function` or
    `module:function`."""
    out: Path | None = None
    """File with one JSON line per episode; unset: one in evals/, named after panel, model and
    settings."""
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
    """How a chat endpoint is used."""


_OWN = ("data", "out", "against", "quiet", "precision")
_SHARED = tuple(f.name for f in fields(EvalArguments) if f.name not in _OWN)
"""Options that are fields of ``Experiment``."""


def evaluate(arguments: list[str]) -> int:
    """``eval MODEL [--world NAME] [options]``."""
    rest = list(arguments)
    world = take(rest, "--world")
    if (model := take(rest, "--model")) is not None:
        rest.insert(0, model)
    options = parse(EvalArguments, rest, prog="agentgym eval", default=_default(rest, world))
    from agentgym.evaluation.files import read_report
    from agentgym.evaluation.render import render
    from agentgym.experiment.job import evaluate_blocking
    from agentgym.experiment.preflight import check

    experiment = Experiment(
        **{name: getattr(options, name) for name in _SHARED},
        optimizer=OptimizerSettings(precision=options.precision),
    )
    check(experiment)
    before = None if options.against is None else read_report(options.against)
    display = Display(Console(), quiet=options.quiet)
    try:
        report = evaluate_blocking(experiment, options.out, display, before)
    except KeyboardInterrupt:
        display.say("stopped; finished episodes are saved, the same command plays the others")
        return 130
    if before is None:
        display.say(render(report))
    else:
        names = before.spec.label, report.spec.label
        same = names[0] == names[1]
        display.say(render(report, before, names=("first", "second") if same else names))
    return 0


def _default(words: list[str], world: str | None) -> EvalArguments | None:
    """Settings of a world's recipe, or of the run of which a checkpoint is named; else None."""
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
        run = replace(run, env=WORLD, env_args={}, tools=())
    check_objects(replace(run, model=None), Objects())
    return _arguments(run, model)


def _arguments(settings: Experiment, model: str) -> EvalArguments:
    held = {name: getattr(settings, name) for name in _SHARED}
    # Engine and server of a run are not those of its evaluation.
    for name in ("engine", "server", "engine_device"):
        del held[name]
    precision = settings.optimizer.precision
    return EvalArguments(**{**held, "model": model or tyro.MISSING, "precision": precision})
