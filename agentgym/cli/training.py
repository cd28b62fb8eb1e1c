"""`agentgym train`."""

from __future__ import annotations

import time
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from agentgym import plugins
from agentgym.cli.parsing import parse, take, value_of
from agentgym.env import registry
from agentgym.errors import ConfigError, did_you_mean
from agentgym.experiment.presets import advice, fitted_algorithm, fitted_values
from agentgym.settings import Experiment
from agentgym.utils import yaml_config
from agentgym.utils.progress import Display

METHOD = "gigpo"
"""What trains where none is named: on the main job it gained with every seed that was tried."""
TRAIN_HELP = f"""Train an agent in a world, and show that it got better.

Without options: makes text-adventure games, trains a tokenizer and a small model from nothing,
imitates walkthroughs, improves by reinforcement, and plays a frozen panel of unseen games before
and after. `--model MODEL` trains a Hugging Face causal language model instead (folder, hub id or
GGUF file), with settings that fit a pretrained model: learning rates, lengths of completions and
contexts, and more (agentgym/experiment/pretrained.yaml). `--lora.rank 16` trains adapters instead
of all its weights.

    agentgym train [ALGORITHM] [--world NAME | --config FILE.yaml] [options]
    agentgym train --resume RUN

`--world alfworld` (or textworld, webshop, scienceworld, any other) trains in that world, with the
settings of the recipe that comes with it.

`agentgym algorithms` lists the algorithms; where none is named it is `{METHOD}`. `epo` is the
corrected method, `epo.paper` what the paper says, `epo.released` what the authors' code does.

A file sets what it names and flags come on top. A resumed run continues after Ctrl-C or a kill
with the settings it was started with.
"""

OUT_HELP = "Where the run goes; unless given, runs/ALGORITHM-seedSEED-TIME."
VARIANTS = ("paper", "released")
"""Constructors of an algorithm, besides the default."""


def train(arguments: list[str]) -> int:
    """``train [ALGORITHM] [--world NAME | --config FILE] [--resume RUN] [options]``."""
    rest = list(arguments)
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    resumed = take(rest, "--resume")
    file: str | Path | None = take(rest, "--config")
    world = take(rest, "--world")
    if world and file:
        raise ConfigError("--world and --config both name a file of settings: give one of them")
    if resumed is not None:
        if rest or file or named or world:
            raise ConfigError(
                f"a resumed run keeps its settings: run `agentgym train --resume {resumed}` alone"
            )
        from agentgym.experiment.run_folder import RunFolder

        file = RunFolder(Path(resumed)).config
    model, lora = value_of(rest, "--model"), value_of(rest, "--lora.rank") is not None
    if world:
        default = plan_for_env(named, world, model=model, lora=lora)
    else:
        default = plan_for(named, file, model=model, lora=lora)
    prog = f"agentgym train {default.algorithm}"
    plan = parse(type(default), rest, prog=prog, default=default)
    return _train(plan, None if resumed is None else Path(resumed))


def plan_for(
    named: str | None, file: str | Path | None, *, model: str | None = None, lora: bool = False
) -> Any:
    """The plan of a file, with a method: the one named, else the file's, else ``METHOD``.

    Args:
        named: Algorithm named besides the file.
        file: YAML; None for the defaults.
        model: Model named besides the file; settings that fit a pretrained model come with it.
        lora: Whether adapters are asked for besides the file.
    """
    name = named or (yaml_config.peek(file, "algorithm") if file else None) or METHOD
    kind = _plan(name)
    values = yaml_config.read(file) if file else {}
    fits = isinstance(values, dict)
    plan: Any = yaml_config.decode(
        kind, fitted_values(values, model=model, lora=lora) if fits else values, where=str(file)
    )
    if model is not None or plan.model is not None:
        plan = replace(plan, algo=fitted_algorithm(plan.algo, values.get("algo") or {}))
    # The file may name another method than the one that is wanted.
    return replace(plan, algorithm=name)


def plan_for_env(
    named: str | None, world: str, *, model: str | None = None, lora: bool = False
) -> Any:
    """The plan of an environment's recipe; the defaults where it has none."""
    env = registry.full_id(world)
    return replace(plan_for(named, registry.recipe(env), model=model, lora=lora), env=env)


def _plan(name: str) -> type[Any]:
    """``Experiment`` with the fields of one algorithm, and where the run goes."""
    base, _, form = name.partition(".")
    algo = plugins.algorithm(base)
    if form and form not in VARIANTS:
        raise ConfigError(
            f"{base} has no variant {form!r}.{did_you_mean(form, VARIANTS)} "
            f"Variants: {', '.join(VARIANTS)}"
        )
    fields: list[Any] = [
        ("algorithm", tyro.conf.Suppress[str], field(default=name)),
        ("algo", algo, field(default_factory=getattr(algo, form) if form else algo)),
        ("out", Annotated[Path | None, tyro.conf.arg(help=OUT_HELP)], field(default=None)),
    ]
    plan = make_dataclass("Plan", fields, bases=(Experiment,), frozen=True, kw_only=True)
    plan.__doc__ = TRAIN_HELP
    return plan


def _train(plan: Any, resumed: Path | None) -> int:
    from agentgym.experiment.job import run_blocking
    from agentgym.experiment.preflight import check
    from agentgym.experiment.run_folder import RunFolder
    from agentgym.utils.jsonl import write_atomic

    stamp = time.strftime("%Y%m%d-%H%M%S")
    fresh = plan.out or Path("runs") / f"{plan.algorithm}-seed{plan.seed}-{stamp}"
    root = resumed or fresh
    folder = RunFolder(root)
    if resumed is None and folder.config.exists():
        raise ConfigError(f"{root} holds a run: `agentgym train --resume {root}` continues it")
    algorithm = plan.algo.build()
    check(plan, trains=True)
    write_atomic(folder.config, yaml_config.dump(plan))
    display = Display(Console())
    display.say(f"run folder: {root}")
    for line in advice(plan):
        display.say(f"warning: {line}")
    try:
        run_blocking(plan, algorithm, folder, display)
    except KeyboardInterrupt:
        display.say(f"stopped; continue with: agentgym train --resume {root}")
        return 130
    return 0
