"""`agentgym serve`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from agentgym import plugins
from agentgym.cli.parsing import parse
from agentgym.env import registry
from agentgym.errors import ConfigError, MissingExtra
from agentgym.settings import Value
from agentgym.utils.access import Access, Guarded, is_loopback


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
    """Address to listen on; 0.0.0.0 admits other machines. That takes a secret in the environment
    variable AGENTGYM_TOKEN: programs send it as bearer token, people open `/?token=SECRET`."""
    port: int = 8000
    """Port to listen on."""

    def check(self) -> None:
        """Refuse options that do not go together."""
        if self.openenv + self.agentgym_http + (self.mcp != "no") > 1:
            raise ConfigError("give one of `--openenv`, `--agentgym-http` and `--mcp`")
        if self.audit and not self.openenv:
            raise ConfigError("`--audit` belongs to `--openenv`")
        if self.audit and not is_loopback(self.host):
            raise ConfigError(f"--audit shows the oracle: it is for 127.0.0.1, not for {self.host}")
        if not 0 < self.port < 2**16:
            raise ConfigError(f"port is {self.port}, expected 1 to 65535")


class Site(NamedTuple):
    """What is served over HTTP."""

    app: Any
    """An ASGI application."""
    path: str = ""
    """Where clients find it."""


def serve(arguments: list[str]) -> int:
    """``serve [ENV] [options]``."""
    options = parse(ServeOptions, arguments, prog="agentgym serve")
    options.check()
    if options.mcp == "stdio":
        from agentgym.env.mcp_server import mcp_server

        mcp_server(options.env, options.env_args).run("stdio")
        return 0
    access = Access.of(options.host)
    site = _site(options)
    try:
        import uvicorn
    except ModuleNotFoundError:
        raise MissingExtra('serving needs Uvicorn: pip install "agentic-gym[serve]"') from None
    address = f"http://{options.host}:{options.port}{site.path}"
    print(f"{options.env} is at {address} (Ctrl-C ends it)", flush=True)
    guarded = Guarded(site.app, access)
    uvicorn.run(guarded, host=options.host, port=options.port, log_level="warning")
    return 0


def _site(options: ServeOptions) -> Site:
    """The application that the options name.

    Raises:
        ConfigError: The environment or service does not exist, or has no web pages.
        MissingExtra: A package is not installed.
    """
    name, kwargs = options.env, options.env_args
    if options.agentgym_http:
        from agentgym.interop.there.agentgym_http import agentgym_http_app

        return Site(agentgym_http_app(name, kwargs))
    if options.openenv:
        from agentgym.interop.openenv.served import Served
        from agentgym.interop.openenv.server import openenv_app

        return Site(openenv_app(Served(env=name, kwargs=kwargs, audit=options.audit)))
    if options.mcp == "http":
        from agentgym.env.mcp_server import mcp_server

        return Site(mcp_server(name, kwargs).streamable_http_app(host=options.host), "/mcp")
    if service := plugins.service(registry.short_name(name)):
        try:
            return Site(service(**kwargs))
        except TypeError as problem:
            raise ConfigError(f"{name}: {problem}") from problem
    registry.world(name, **kwargs).close()
    raise ConfigError(
        f"{name} has no web pages: play it in the terminal with `agentgym play {name}`, or "
        f"serve it to programs with `--openenv` or `--mcp http`"
    )
