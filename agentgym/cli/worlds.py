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
from agentgym.settings import WORLD, CheckSettings, Value
from agentgym.utils.progress import Display


@dataclass(frozen=True, kw_only=True)
class EnvsOptions:
    """List the worlds: id, splits with task counts, horizon in turns, and what is installed."""


def envs(arguments: list[str]) -> int:
    """``envs``."""
    parse(EnvsOptions, arguments, prog="agentgym envs")
    from agentgym.cli.terminal import listing

    Console().print(listing())
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
    oracle: bool = False
    """Show how the oracle plays, without asking for anything."""


def play(arguments: list[str]) -> int:
    """``play [ENV] [options]``."""
    options = parse(PlayOptions, arguments, prog="agentgym play")
    from agentgym.cli.terminal import play_in_terminal

    return play_in_terminal(
        options.env,
        options.env_args,
        task=options.task,
        seed=options.seed,
        console=Console(),
        oracle=options.oracle,
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
    options = parse(ServeOptions, arguments, prog="agentgym serve")
    name, path = registry.full_id(options.env), ""
    if options.mcp != "no":
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
    effort: CheckSettings = field(default_factory=CheckSettings)
    """How long to look."""


def check(arguments: list[str]) -> int:
    """``check ENV [options]``."""
    options = parse(CheckOptions, arguments, prog="agentgym check")
    from agentgym.testing.terminal import check_in_terminal

    env = registry.full_id(options.env)
    return check_in_terminal(env, options.env_args, options.effort, Display(Console()))


@dataclass(frozen=True, kw_only=True)
class NewEnvOptions:
    """Write a package with a small world, an entry point and a test, ready to be changed."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """Lower-case words joined by hyphens, such as lost-key."""
    into: Path = Path()
    """Folder in which the package's folder is made."""


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
