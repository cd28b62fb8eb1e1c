"""`agentgym envs`, `play`, `serve`, `check` and `new-env`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from agentgym import plugins
from agentgym.cli.parsing import parse
from agentgym.env import registry
from agentgym.errors import ConfigError, MissingExtra
from agentgym.experiment.sources import EnvSource
from agentgym.settings import WORLD, CheckSettings, Value
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class EnvsOptions:
    """List the environments: id, splits with task counts, turn limit, and what is installed."""


def envs(arguments: list[str]) -> int:
    """``envs``."""
    parse(EnvsOptions, arguments, prog="agentgym envs")
    from agentgym.cli.terminal import print_environments

    print_environments(Console())
    return 0


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """Play an environment yourself.

    `:hint` shows the oracle's next action, `:actions` the admissible actions, `:quit` leaves.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = WORLD
    """Environment id, short name, `file.py:ClassName`, or one of another library; see
    `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, such as `family cooking difficulty easy`."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    tools: tuple[str, ...] = ()
    """Functions to call in addition to the actions, as `file.py:function` or `module:function`."""
    task: str | None = None
    """Task id; unset: the seed draws one."""
    seed: int = 0
    """Seed of the task and of everything random in it."""
    oracle: bool = False
    """Show how the oracle plays instead of asking for actions."""
    record: Path | None = None
    """Add the finished episode to this file; `agentgym eval replay:FILE` measures its player."""


def play(arguments: list[str]) -> int:
    """``play [ENV] [options]``."""
    options = parse(PlayOptions, arguments, prog="agentgym play")
    from agentgym.cli.terminal import play_in_terminal

    source = EnvSource(env=options.env, kwargs=options.env_args, tools=options.tools)
    return play_in_terminal(
        source,
        task=options.task,
        seed=options.seed,
        console=Console(),
        oracle=options.oracle,
        record=options.record,
    )


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Serve an environment to people in a web browser; each visitor plays an own episode.

    With `--mcp`, programs play it through the Model Context Protocol instead; with `--openenv`,
    trainers and programs play it through OpenEnv. `serve retrieve` answers searches over HTTP.
    """

    env: tyro.conf.Positional[str] = "webshop"
    """Environment id, short name, or `file.py:ClassName`; or the name of a service."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment, or of the service."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    mcp: Literal["no", "stdio", "http"] = "no"
    """Speak MCP: over standard input and output, or over streamable HTTP at /mcp."""
    openenv: bool = False
    """Speak OpenEnv: sessions over a WebSocket at /ws, tasks and schemas over HTTP."""
    agentgym_http: bool = False
    """Speak the HTTP interface of AgentGym's environment servers: create, reset, step, close."""
    audit: bool = False
    """With `--openenv`: also answer what `agentgym check openenv:URL` asks, the oracle included."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 admits other machines. `--openenv` and `--agentgym-http` then
    need a secret in the environment variable AGENTGYM_OPENENV_TOKEN, which clients send as
    bearer token."""
    port: int = 8000
    """Port to listen on."""


def serve(arguments: list[str]) -> int:
    """``serve [ENV] [options]``."""
    options = parse(ServeOptions, arguments, prog="agentgym serve")
    name, path = options.env, ""
    if options.openenv + options.agentgym_http + (options.mcp != "no") > 1:
        raise ConfigError("give one of `--openenv`, `--agentgym-http` and `--mcp`")
    if options.audit and not options.openenv:
        raise ConfigError("`--audit` belongs to `--openenv`")
    if options.agentgym_http:
        from agentgym.interop.openenv.address import check_address
        from agentgym.interop.there.agentgym_http import agentgym_http_app

        token = check_address(options.host, audit=False)
        site = agentgym_http_app(name, options.env_args, token)
    elif options.openenv:
        from agentgym.interop.openenv.address import check_address
        from agentgym.interop.openenv.served import Served
        from agentgym.interop.openenv.server import openenv_app

        token = check_address(options.host, audit=options.audit)
        served = Served(env=name, kwargs=options.env_args, audit=options.audit)
        site = openenv_app(served, token)
    elif options.mcp != "no":
        from agentgym.env.mcp_server import mcp_server

        server = mcp_server(name, options.env_args)
        if options.mcp == "stdio":
            server.run("stdio")
            return 0
        site, path = server.streamable_http_app(host=options.host), "/mcp"
    elif service := plugins.service(registry.short_name(name)):
        try:
            site = service(**options.env_args)
        except TypeError as problem:
            raise ConfigError(f"{name}: {problem}") from problem
    else:
        registry.world(name, **options.env_args).close()
        raise ConfigError(
            f"{name} has no web pages: play it in the terminal with `agentgym play {name}`, or "
            f"serve it to programs with `--openenv` or `--mcp http`"
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
    """Check everything that training and evaluation rely on in an environment.

    `check openenv:URL` audits any OpenEnv server.

    Prints a row per check: passed, failed with the reason, or skipped with the reason. The exit
    status is 0 when no check failed, 1 otherwise.
    """

    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")]
    """Environment id, short name, `file.py:ClassName`, or one of another library, such as
    `openenv:URL` or `gym:ID`; see `agentgym envs`."""
    env_args: dict[str, Value] = field(default_factory=dict)
    """Keyword arguments of the environment; small settings make the check quick."""
    data: Path | None = None
    """File of tasks, passed to the environment as its argument `data`."""
    effort: CheckSettings = field(default_factory=CheckSettings)
    """How much work the checks do."""
    report: Path | None = None
    """File for the findings as JSON, with the verdicts by OpenEnv's names."""


def check(arguments: list[str]) -> int:
    """``check ENV [options]``."""
    options = parse(CheckOptions, arguments, prog="agentgym check")
    from agentgym.testing.terminal import check_in_terminal

    return check_in_terminal(
        options.env, options.env_args, options.effort, Display(Console()), options.report
    )


@dataclass(frozen=True, kw_only=True)
class NewEnvOptions:
    """Write a package with a small environment, an entry point and a test, ready to edit."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Lower-case words joined by hyphens, such as lost-key."""
    into: Path = Path()
    """Folder in which the package is created."""


def new_env(arguments: list[str]) -> int:
    """``new-env NAME [options]``."""
    options = parse(NewEnvOptions, arguments, prog="agentgym new-env")
    from agentgym.cli.scaffold import new_environment

    env, folder = new_environment(options.name, options.into)
    print(
        f"wrote {folder}; next:\n"
        f"  pip install -e {folder}\n"
        f"  agentgym check {env}\n"
        f"  agentgym play {env}\n"
        f"  agentgym train --env {env}"
    )
    return 0
