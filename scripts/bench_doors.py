"""Steps per second through OpenEnv, as ratios: in process, ours served, OpenEnv's own echo.

The same moves of Hotter are played in process and over the wire. Where ``openenv`` is installed
(``.venv-interop/openenv``, made by ``scripts/test-interop openenv``), the environment that
``openenv init`` writes is served by OpenEnv's own server and stepped by OpenEnv's own client and by
ours, and OpenEnv's client steps our server. Then tokens per second under an agent program, against
the native agent: what ``scripts/bench programs`` measures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import bench_programs
from openenv_servers import free_port, process, serving

from agentgym.env.registry import world

OPENENV = Path(".venv-interop/openenv/bin/python").absolute()
ECHO = """
import sys, uvicorn; sys.path.insert(0, '.')
from openenv.core.env_server.http_server import create_fastapi_app
from server.echo_environment import EchoEnvironment
from models import EchoAction, EchoObservation
app = create_fastapi_app(EchoEnvironment, EchoAction, EchoObservation, max_concurrent_envs=64)
uvicorn.run(app, host='127.0.0.1', port=int(sys.argv[1]), log_level='error')
"""
THEIRS = """
import json, sys, time
from openenv.core import GenericEnvClient
url, field, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
with GenericEnvClient(base_url=url).sync() as env:
    env.reset(seed=0)
    started = time.perf_counter()
    for n in range(steps):
        if n % 5 == 0:
            env.reset(seed=0)
        env.step({field: "1"})
    print(steps / (time.perf_counter() - started))
"""


def rate(name: str, steps: int) -> float:
    """Steps per second of one session, with a reset after every five."""
    env = world(name)
    env.reset(seed=0)
    started = time.perf_counter()
    for number in range(steps):
        if number % 5 == 0:
            env.reset(seed=0)
        env.step("1")
    found = steps / (time.perf_counter() - started)
    env.close()
    return found


def together(name: str, steps: int, sessions: int) -> float:
    """Steps per second of several sessions at once, in sum."""
    threads = [
        threading.Thread(target=rate, args=(name, steps // sessions)) for _ in range(sessions)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return steps / (time.perf_counter() - started)


def by_their_client(url: str, field: str, steps: int) -> float:
    """Steps per second of OpenEnv's own client."""
    command = [str(OPENENV), "-c", THEIRS, url, field, str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def echo(stack: ExitStack) -> str:
    """The address of OpenEnv's own server with the environment of ``openenv init``."""
    folder, port = stack.enter_context(tempfile.TemporaryDirectory()), free_port()
    make = [str(OPENENV), "-m", "openenv.cli", "init", "echo", "--output-dir", folder]
    subprocess.run(make, check=True, capture_output=True)
    inside = next(Path(folder).rglob("openenv.yaml")).parent
    command = [str(OPENENV), "-c", ECHO, str(port)]
    return stack.enter_context(process(command, port, cwd=inside, PYTHONPATH=""))


def main() -> None:
    """Print the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=8)
    steps, sessions = parser.parse_args().steps, parser.parse_args().sessions
    measured: list[tuple[str, Callable[[], float]]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(serving("hotter"))
        name = f"openenv:{ours}"
        measured.append(("in process", lambda: rate("hotter", 20 * steps)))
        measured.append(("our server, our client", lambda: rate(name, steps)))
        measured.append(
            (f"our server, {sessions} sessions", lambda: together(name, steps, sessions))
        )
        if OPENENV.exists():
            theirs = echo(stack)
            measured += [
                ("our server, OpenEnv's client", lambda: by_their_client(ours, "text", steps)),
                ("OpenEnv's echo, our client", lambda: rate(f"openenv:{theirs}", steps)),
                (
                    "OpenEnv's echo, OpenEnv's client",
                    lambda: by_their_client(theirs, "message", steps),
                ),
            ]
        else:
            print("without OpenEnv: scripts/test-interop openenv installs it")
        rates = [(title, measure()) for title, measure in measured]
    first = dict(rates)["our server, our client"]
    last = rates[-1][1]
    print(f"{'':34} {'steps/s':>9} {'of ours':>8} {'of echo':>8}")
    for title, found in rates:
        echoed = f"{found / last:8.2f}" if OPENENV.exists() else ""
        print(f"{title:34} {found:9.0f} {found / first:8.2f} {echoed}")
    bench_programs.main(bench_programs.Options())


if __name__ == "__main__":
    main()
