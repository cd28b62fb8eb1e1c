"""`agentgym train`."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from rich.console import Console

from agentgym.cli.flags import check_flags
from agentgym.cli.parsing import HELP_FLAGS, parse, take, value_of
from agentgym.errors import ConfigError, MissingExtra
from agentgym.experiment.plan import DEFAULT_ALGORITHM, Plan, load_plan, plan_for_env
from agentgym.settings import Experiment
from agentgym.utils.progress import Display

TRAIN_HELP = f"""Train an agent in an environment, and measure how much it improves.

Without options: generates text-adventure games, makes a tokenizer and a small model from scratch,
imitates walkthroughs, trains by reinforcement learning, and plays a frozen panel of unseen games
before and after. `--model MODEL` trains a Hugging Face causal language model instead (folder, hub
id or GGUF file), with settings that fit a pretrained model: learning rates, lengths of completions
and contexts, and more (agentgym/experiment/pretrained.yaml). `--lora.rank 16` trains adapters
instead of all its weights.

    agentgym train [ALGORITHM] [--world NAME | --config FILE.yaml] [options]
    agentgym train --resume RUN [--steps N]

`--agent-program "python my_agent.py"` trains the model under an agent program that you have: it
runs once per episode, calls the model at OPENAI_BASE_URL and acts at AGENTGYM_WORLD_URL.

`--world alfworld` (or textworld, webshop, scienceworld, any other) trains in that environment with
the settings of its recipe; `--env` chooses the environment alone.

`agentgym algorithms` lists the algorithms; the default is `{DEFAULT_ALGORITHM}`. `epo` is the
corrected method, `epo.paper` follows the paper, `epo.released` the authors' code.

Options override the file or recipe. A resumed run continues after Ctrl-C or a kill with its own
settings; `--steps N` extends it.
"""

OUT_HELP = "Run folder; unset: runs/ALGORITHM-seedSEED-TIME."
QUIET_HELP = "Show results and warnings only, no progress."
DATA_HELP = "File of tasks, passed to the environment as its argument `data`."


def train(arguments: list[str]) -> int:
    """``train [ALGORITHM] [--world NAME | --config FILE] [--resume RUN] [options]``."""
    rest = list(arguments)
    resumed = take(rest, "--resume")
    file = take(rest, "--config")
    world = take(rest, "--world")
    if rest:
        check_flags(rest[:1] if "=" in rest[0] else [], Experiment, "agentgym train")
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    if world and file:
        raise ConfigError("--world and --config both name a file of settings: give one of them")
    if resumed is not None and (file or named or world):
        raise ConfigError(
            f"a resumed run keeps its settings: run `agentgym train --resume {resumed}` with no "
            f"other algorithm, world or file"
        )
    if resumed is not None:
        file = str(Path(resumed) / "config.yaml")
    model, lora = value_of(rest, "--model"), value_of(rest, "--lora.rank") is not None
    try:
        if world:
            plan = plan_for_env(world, named, model=model, lora=lora)
        else:
            plan = load_plan(file, named, model=model, lora=lora)
    except MissingExtra as missing:
        if HELP_FLAGS & set(rest):
            show_help_without_algorithm(missing)
        raise
    chosen = parse_plan(plan, rest)
    from agentgym.experiment.start import start

    try:
        start(
            chosen.plan,
            out=chosen.out,
            resume=None if resumed is None else Path(resumed),
            previous=plan,
            display=Display(Console(), quiet=chosen.quiet),
        )
    except KeyboardInterrupt:
        return 130
    return 0


class Chosen:
    """What a command line chooses: the plan, where the run goes, and how much is shown."""

    def __init__(self, options: Any, algorithm: str) -> None:
        wanted = {f.name: getattr(options, f.name) for f in fields(Experiment)}
        self.plan = Plan(algorithm=algorithm, algo=options.algo, experiment=Experiment(**wanted))
        self.out: Path | None = options.out
        self.quiet: bool = options.quiet


def parse_plan(plan: Plan, words: list[str]) -> Chosen:
    """A plan with the options of a command line."""
    kind = options_class(TRAIN_HELP, ("algo", type(plan.algo), field(default=plan.algo)))
    held = {f.name: getattr(plan.experiment, f.name) for f in fields(Experiment)}
    default = replace(kind(), **held)
    options = parse(kind, words, prog=f"agentgym train {plan.algorithm}", default=default)
    return Chosen(options, plan.algorithm)


def show_help_without_algorithm(missing: MissingExtra) -> NoReturn:
    """Print every option except those of the algorithm (its package is not installed), and exit."""
    note = f"Not listed: the options of the algorithm (`--algo.*`), since {missing}"
    parse(options_class(f"{TRAIN_HELP}\n{note}\n"), ["--help"], prog="agentgym train")
    raise AssertionError("the parser exits after its help")


def options_class(about: str, *more: tuple[str, type, Any]) -> Any:
    """The dataclass whose fields are the options of ``train``."""
    kind = make_dataclass(
        "Options",
        [
            *more,
            ("out", Annotated[Path | None, tyro.conf.arg(help=OUT_HELP)], field(default=None)),
            ("quiet", Annotated[bool, tyro.conf.arg(help=QUIET_HELP)], field(default=False)),
            ("data", Annotated[Path | None, tyro.conf.arg(help=DATA_HELP)], field(default=None)),
        ],
        bases=(Experiment,),
        frozen=True,
        kw_only=True,
    )
    kind.__doc__ = about
    return kind
