"""`agentgym view`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agentgym.cli.parsing import parse
from agentgym.errors import ConfigError
from agentgym.utils.access import Access


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Look at episodes in a browser: conversations, tokens by entropy, trees, two side by side.

    Serves the page on this machine, or writes one HTML file that opens offline.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """Run folders and files of episodes (.jsonl)."""
    bundle: Path | None = None
    """Write the page to this file instead of serving it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 admits other machines. That takes a secret in the environment
    variable AGENTGYM_TOKEN, and the page is opened at `/?token=SECRET`."""
    port: int = 8080
    """Port to listen on; 0 takes a free one."""


def view(arguments: list[str]) -> int:
    """``view RUN_OR_FILE... [options]``."""
    options = parse(ViewOptions, arguments, prog="agentgym view")
    from agentgym.viewer.page import bundle, page
    from agentgym.viewer.source import load

    if not options.paths:
        raise ConfigError("name a run folder or a file of episodes: agentgym view RUN")
    if options.bundle is None:
        Access.of(options.host)  # Refused before episodes are read.
    loaded = load(options.paths)
    for warning in loaded.warnings:
        print(f"warning: {warning}")
    title = ", ".join(path.resolve().name for path in options.paths)
    if options.bundle is not None:
        size = bundle(loaded, options.bundle, title)
        print(f"{len(loaded.episodes)} episodes in {options.bundle} ({size / 2**20:.1f} MiB)")
        return 0
    from agentgym.viewer.server import server

    if not 0 <= options.port < 2**16:
        raise ConfigError(f"port is {options.port}, expected 0 to 65535")
    try:
        running = server(lambda: page(load(options.paths), title), options.host, options.port)
    except OSError as problem:
        raise ConfigError(
            f"cannot listen on {options.host}:{options.port} ({problem.strerror}): choose another "
            f"--port"
        ) from problem
    address = f"http://{options.host}:{running.server_address[1]}"
    print(f"{len(loaded.episodes)} episodes at {address} (Ctrl-C ends it)", flush=True)
    try:
        running.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        running.server_close()
    return 0
