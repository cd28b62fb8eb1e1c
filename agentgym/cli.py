"""The command line: one verb per function; the only file that knows tyro.

The fields and docstrings of a verb's dataclass are its options and its help.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from agentgym import config, registry
from agentgym.defaults import unusual, usual
from agentgym.display import Display
from agentgym.errors import AgentGymError, ConfigError, MissingExtra, did_you_mean
from agentgym.settings import (
    WORLD,
    Effort,
    EngineKind,
    Evaluation,
    Experiment,
    Rollout,
    Speech,
    Value,
)

WIDE = 100
"""Characters of a terminal from which on each choice of an algorithm has a column of its own."""

USAGE = """\
usage: agentgym VERB [options]

  train        train an agent in a world, and show that it got better
  eval         play a frozen panel of tasks with a model and report pass@k
  play         play a world yourself, in the terminal
  serve        let people play a world in a web browser, or programs by MCP; or a service
  check        check that a world keeps the contract
  new-env      write a package with a world of your own
  doctor       say which engines work on this machine, and why others do not
  envs         list the worlds: splits, tasks, horizon, what is installed
  algorithms   list the algorithms: paper, and what each chooses

`agentgym VERB --help` explains a verb's options.
"""

METHOD = "gigpo"
"""What trains where none is named: on the main job it gained with every seed that was tried."""
TRAIN_HELP = f"""Train an agent in a world, and show that it got better.

Without options: makes household games (ALFWorld), trains a tokenizer and a small model from
nothing, imitates the world's oracle, improves by reinforcement, and plays a frozen panel of games
in unseen rooms before and after. `--model FOLDER_OR_HUB_ID` trains any Hugging Face causal language
model instead.

    agentgym train [ALGORITHM] [--world NAME | --env ID | --config FILE.yaml] [options]
    agentgym train --resume RUN

`--world textworld` (or webshop, scienceworld, any other) trains in that world, with the settings of
the recipe that comes with it; `--env` leaves recipes aside.

`agentgym algorithms` lists the algorithms; where none is named it is `{METHOD}`. `epo` is the
corrected method, `epo.paper` what the paper says, `epo.released` what the authors' code does.

A file sets what it names and flags come on top. A resumed run continues after Ctrl-C or a kill
with the settings it was started with.
"""

OUT_HELP = "Where the run goes; unless given, runs/ALGORITHM-seedSEED-TIME."
FORMS = ("paper", "released")
"""Constructors of an algorithm, besides the default."""

T = TypeVar("T")


# ---- train -----------------------------------------------------------------------------------


def train(arguments: list[str]) -> int:
    """``train [ALGORITHM] [--world NAME | --config FILE] [--resume RUN] [options]``."""
    rest = list(arguments)
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    resumed = _take(rest, "--resume")
    file: str | Path | None = _take(rest, "--config")
    world = _take(rest, "--world")
    if world and file:
        raise ConfigError("--world and --config both name a file of settings: give one of them")
    if resumed is not None:
        if rest or file or named or world:
            raise ConfigError(
                f"a resumed run keeps its settings: run `agentgym train --resume {resumed}` alone"
            )
        from agentgym.runs import RunFolder

        file = RunFolder(Path(resumed)).config
    if not (world or file or _sets("--env", rest)):
        world = WORLD
    default = in_world(named, world) if world else planned(named, file)
    prog = f"agentgym train {default.algorithm}"
    plan = _parse(type(default), rest, prog=prog, default=default)
    return _train(plan, None if resumed is None else Path(resumed))


def planned(named: str | None, file: str | Path | None) -> Any:
    """What a file sets, with a method: the one named, else the file's, else ``METHOD``."""
    name = named or (config.peek(file, "algorithm") if file else None) or METHOD
    kind = _plan(name)
    # The file may name another method than the one that is wanted.
    return replace(config.load(kind, file), algorithm=name) if file else kind()


def in_world(named: str | None, world: str) -> Any:
    """What a world's recipe sets; the world need not have one."""
    env = registry.full_id(world)
    return replace(planned(named, registry.recipe(env)), env=env)


def _plan(name: str) -> type[Any]:
    """``Experiment`` with the fields of one algorithm, and where the run goes."""
    base, _, form = name.partition(".")
    algo = registry.algorithm(base)
    if form and form not in FORMS:
        raise ConfigError(
            f"{base} has no form {form!r}.{did_you_mean(form, FORMS)} Forms: {', '.join(FORMS)}"
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
    from agentgym.experiment import check, run_blocking
    from agentgym.jsonl import write_atomic
    from agentgym.runs import RunFolder

    stamp = time.strftime("%Y%m%d-%H%M%S")
    fresh = plan.out or Path("runs") / f"{plan.algorithm}-seed{plan.seed}-{stamp}"
    root = resumed or fresh
    folder = RunFolder(root)
    if resumed is None and folder.config.exists():
        raise ConfigError(f"{root} holds a run: `agentgym train --resume {root}` continues it")
    algorithm = plan.algo.build()
    check(plan, trains=True)
    write_atomic(folder.config, config.dump(plan))
    display = Display(Console())
    display.say(f"run folder: {root}")
    try:
        run_blocking(plan, algorithm, folder, display)
    except KeyboardInterrupt:
        display.say(f"stopped; continue with: agentgym train --resume {root}")
        return 130
    return 0


# ---- eval ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Play a frozen panel of tasks with a model and report pass@k with 95 % intervals.

    The checkpoint of a run plays what its run was evaluated on, unless options say otherwise.
    Stopping it and calling it again plays only the episodes that are missing.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Hugging Face folder or hub id, such as RUN/checkpoints/final."""
    env: str = WORLD
    """Registered environment id."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world, such as `family cooking difficulty easy`."""
    out: Path = Path("evaluation.jsonl")
    """One JSON line per episode."""
    engine: EngineKind = "local"
    """What samples: this process, vLLM in it, a vLLM server, or a chat endpoint."""
    server: str | None = None
    """Address of a running server, without /v1; unless given, vllm-server starts one."""
    engine_device: str | None = None
    """Where the local engine samples, such as cuda:1; a GPU where there is one, unless given."""
    seed: int = 0
    panel: Evaluation = field(default_factory=Evaluation)
    """Which tasks, how often."""
    rollout: Rollout = field(default_factory=Rollout)
    """How episodes are played."""
    speech: Speech = field(default_factory=Speech)
    """How the agent reads and writes."""


def _of_run(words: Sequence[str]) -> EvalOptions | None:
    """How the run was evaluated of which a checkpoint is named; None where none is."""
    from agentgym.runs import RunFolder

    for word in words:
        if (folder := RunFolder.holding(Path(word))) is not None:
            run = planned(None, folder.config)
            # The arguments of one world mean nothing to another.
            return EvalOptions(
                model=word,
                env=run.env,
                env_args={} if _sets("--env", words) else run.env_args,
                seed=run.seed,
                panel=run.evaluation,
                rollout=run.rollout,
                speech=run.speech,
            )
    return None


def evaluate(arguments: list[str]) -> int:
    """``eval MODEL [options]``."""
    options = _parse(EvalOptions, arguments, prog="agentgym eval", default=_of_run(arguments))
    from agentgym.experiment import check, evaluate_blocking
    from agentgym.report import render

    experiment = Experiment(
        env=options.env,
        env_args=options.env_args,
        model=options.model,
        engine=options.engine,
        server=options.server,
        engine_device=options.engine_device,
        seed=options.seed,
        rollout=options.rollout,
        speech=options.speech,
        evaluation=options.panel,
    )
    check(experiment)
    display = Display(Console())
    try:
        report = evaluate_blocking(experiment, options.out, display)
    except KeyboardInterrupt:
        display.say("stopped; the same command plays what is missing")
        return 130
    display.say(render(report))
    display.say(f"episodes: {options.out}")
    return 0


# ---- envs, algorithms, play -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EnvsOptions:
    """List the worlds: id, splits with task counts, horizon in turns, and what is installed."""


def envs(arguments: list[str]) -> int:
    """``envs``."""
    _parse(EnvsOptions, arguments, prog="agentgym envs")
    from agentgym.play import listing

    Console().print(listing())
    return 0


@dataclass(frozen=True, kw_only=True)
class AlgorithmsOptions:
    """List the algorithms: arXiv id, what each collects, credits and minimises, and its defaults.

    `agentgym train NAME --help` explains the fields of one, with their defaults.
    """


def algorithms(arguments: list[str]) -> int:
    """``algorithms``."""
    _parse(AlgorithmsOptions, arguments, prog="agentgym algorithms")
    kinds, console = registry.algorithms(), Console()
    choices = ("collect", "credit", "update") if console.width >= WIDE else ("method",)
    longest, arxiv_id = max(map(len, kinds)), len("2402.03300")
    free = console.width - longest - arxiv_id - 2 * (len(choices) + 2)
    last = max(24, free // (len(choices) + 1))  # room for the longest `field=value`
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("arXiv", no_wrap=True)
    for choice in choices:
        table.add_column(choice, width=max(8, (free - last) // len(choices)))
    table.add_column("defaults", width=last)
    made = {name: kind() for name, kind in kinds.items()}
    known = usual(made.values())
    for name, kind in kinds.items():
        summary = ((kind.__doc__ or "").strip().partition("\n")[0], "", "")
        arxiv, *said = getattr(kind, "about", None) or ("", *summary)
        cells = said if len(choices) > 1 else ["; ".join(part for part in said if part)]
        table.add_row(name, arxiv, *cells, unusual(made[name], known))
    console.print(table)
    agreed = " ".join(f"{name}={value}" for name, value in known.items())
    console.print(f"\nWhere a method has the field and does not say: {agreed}", highlight=False)
    return 0


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """Play a world yourself.

    `:hint` shows the oracle's next move, `:actions` what means something now, `:quit` leaves.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = WORLD
    """Registered environment id."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world, such as `family cooking difficulty easy`."""
    task: str | None = None
    """Task id; unless given, the seed draws one."""
    seed: int = 0


def play(arguments: list[str]) -> int:
    """``play [ENV] [options]``."""
    options = _parse(PlayOptions, arguments, prog="agentgym play")
    from agentgym.play import play_in_terminal

    return play_in_terminal(
        options.env, options.env_args, task=options.task, seed=options.seed, console=Console()
    )


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Let people play a world in a web browser, each an episode of their own.

    With `--mcp`, programs play it through the Model Context Protocol instead. `serve retrieve`
    answers searches over HTTP.
    """

    env: tyro.conf.Positional[str] = "webshop"
    """Registered environment id, or its short name; or the name of a service."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world, or of the service."""
    mcp: Literal["no", "stdio", "http"] = "no"
    """Speak MCP: over standard input and output, or over streamable HTTP at /mcp."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 8000


def serve(arguments: list[str]) -> int:
    """``serve [ENV] [options]``."""
    options = _parse(ServeOptions, arguments, prog="agentgym serve")
    name, path = registry.full_id(options.env), "/"
    if options.mcp != "no":
        from agentgym.serving import mcp_server

        server = mcp_server(name, options.env_args)
        if options.mcp == "stdio":
            server.run("stdio")
            return 0
        site, path = server.streamable_http_app(host=options.host), "/mcp"
    elif service := registry.service(options.env):
        path = ""
        try:
            site = service(**options.env_args)
        except TypeError as problem:
            raise ConfigError(f"{name}: {problem}") from problem
    else:
        site = registry.world(name, **options.env_args).website()
    if site is None:
        raise ConfigError(
            f"{name} has no web pages; `agentgym play {name}` plays it in the terminal, and "
            f"`--mcp http` serves it to programs"
        )
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingExtra('serving needs Uvicorn: pip install "agentic-gym[serve]"') from None
    print(f"{name} is at http://{options.host}:{options.port}{path} (Ctrl-C ends it)", flush=True)
    uvicorn.run(site, host=options.host, port=options.port, log_level="warning")
    return 0


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Check everything that training and evaluation rely on in a world.

    Prints a row per check: passed, failed and what is wrong, or skipped and why. The status is 0
    when no check failed, 1 otherwise.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Registered environment id, or its short name."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the world; small settings make the check quick."""
    effort: Effort = field(default_factory=Effort)
    """How long to look."""


def check(arguments: list[str]) -> int:
    """``check ENV [options]``."""
    options = _parse(CheckOptions, arguments, prog="agentgym check")
    from agentgym.testing.terminal import check_in_terminal

    env = registry.full_id(options.env)
    return check_in_terminal(env, options.env_args, options.effort, Display(Console()))


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Try every engine with a small model and say which work here, and why others do not.

    Each samples, and again after new weights; its log-probabilities are compared with the model's.
    """

    server: str | None = None
    """Address of a chat endpoint, without /v1, to ask which models it serves."""


def doctor(arguments: list[str]) -> int:
    """``doctor [options]``."""
    options = _parse(DoctorOptions, arguments, prog="agentgym doctor")
    from agentgym.doctor import examine, table

    Console().print(table(examine(options.server)))
    return 0


@dataclass(frozen=True, kw_only=True)
class NewEnvOptions:
    """Write a package with a small world, an entry point and a test, ready to be changed."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Lower-case words joined by hyphens, such as lost-key."""
    into: Path = Path()
    """Folder in which the package's folder is made."""


def new_env(arguments: list[str]) -> int:
    """``new-env NAME [options]``."""
    options = _parse(NewEnvOptions, arguments, prog="agentgym new-env")
    from agentgym.scaffold import new_environment

    env, folder = new_environment(options.name, options.into)
    print(
        f"wrote {folder}; next:\n"
        f"  pip install -e {folder}\n"
        f"  agentgym check {env}\n"
        f"  agentgym play {env}\n"
        f"  agentgym train --env {env}"
    )
    return 0


# ---- entry -----------------------------------------------------------------------------------

VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "eval": evaluate,
    "play": play,
    "serve": serve,
    "check": check,
    "new-env": new_env,
    "doctor": doctor,
    "envs": envs,
    "algorithms": algorithms,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; a deliberate failure is one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads of PyTorch that spin while they wait cost most of the speed on a busy machine and gain
    # nothing on an idle one. Read when torch is loaded, so it must be said before.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. What is still buffered goes nowhere, or
        # the interpreter would complain when it flushes on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: list[str]) -> int:
    try:
        if not words or words[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0 if words else 2
        verb, *rest = words
        if verb not in VERBS:
            known = ", ".join(VERBS)
            raise ConfigError(f"no verb {verb!r}.{did_you_mean(verb, VERBS)} Verbs: {known}")
        return VERBS[verb](rest)
    except AgentGymError as error:
        print(f"agentgym: {error}", file=sys.stderr)
        return 2


# Which of several dataclasses, such as the host of an algorithm, is chosen in a file; here the
# fields of the chosen one are flags like any others.
_NESTED = (tyro.conf.AvoidSubcommands,)


def _parse(kind: type[T], arguments: Sequence[str], *, prog: str, default: T | None = None) -> T:
    words = list(arguments)
    if default is None:
        return tyro.cli(kind, args=words, prog=prog, config=_NESTED)
    if isinstance(default, Experiment | EvalOptions):
        # Of a dictionary that holds something tyro lets nobody set more than it holds.
        told = _take_pairs(words, "--env-args")
        default = replace(default, env_args=default.env_args | told)
    return tyro.cli(kind, args=words, prog=prog, default=default, config=_NESTED)


def _take_pairs(words: list[str], flag: str) -> dict[str, Value]:
    """Remove ``flag NAME VALUE NAME VALUE ...`` from the words and return what it says."""
    if flag not in words:
        return {}
    first = words.index(flag)
    flags = (i for i in range(first + 1, len(words)) if words[i].startswith("--"))
    last = next(flags, len(words))
    told = words[first + 1 : last]
    if not told or len(told) % 2:
        raise ConfigError(f"{flag} expects names and values in turn, got: {' '.join(told)}")
    del words[first:last]
    return {name: _value(text) for name, text in zip(told[::2], told[1::2], strict=True)}


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"True": True, "False": False}.get(text, text)


def _sets(flag: str, words: Sequence[str]) -> bool:
    """Whether the words hold ``flag VALUE`` or ``flag=VALUE``."""
    return any(word.partition("=")[0] == flag for word in words)


def _take(words: list[str], flag: str) -> str | None:
    """Remove ``flag VALUE`` or ``flag=VALUE`` from the words and return the value."""
    for index, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return words.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 == len(words):
                raise ConfigError(f"{flag} needs a value")
            del words[index]
            return words.pop(index)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
