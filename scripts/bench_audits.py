"""What it costs to check environments: over the wire, and in the process of the checker.

    scripts/bench audits [--envs scienceworld web] [--budget 25]

Each environment is served by a process of its own and audited by another, then checked in process.
Seconds are of the clock, from the start of the command to its end; the load of the machine stands
beside them: waits for a core do not count in a budget (`agentgym.testing.budget`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

AGENTGYM = (sys.executable, "-m", "agentgym")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is checked."""

    envs: tuple[str, ...] = ("textworld", "alfworld", "scienceworld", "webshop", "miniwob", "web")
    budget: float = 25.0
    """As `--effort.budget`."""


def checked(env: str, budget: float) -> str:
    """Seconds of a check, and how many of its checks left something out."""
    with tempfile.TemporaryDirectory() as folder:
        report, started = Path(folder, "report.json"), time.monotonic()
        words = ["check", env, "--effort.budget", str(budget), "--report", str(report)]
        done = subprocess.run([*AGENTGYM, *words], capture_output=True, text=True)
        seconds = time.monotonic() - started
        if not report.exists():
            return done.stderr.strip().splitlines()[-1]
        findings = json.loads(report.read_text())["findings"]
    cut = sum(bool(each["cut"]) for each in findings)
    failed = sum(each["verdict"] == "failed" for each in findings)
    return f"{seconds:4.0f} s, {cut:2} of {len(findings)} checks cut, {failed} failed"


def over_the_wire(env: str, budget: float) -> str:
    """The same of a server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", env, "--openenv", "--audit", "--port", str(port)]
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([*AGENTGYM, *words], stdout=quiet, stderr=quiet)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if server.poll() is not None:
                    return "the server did not start"
                time.sleep(0.1)
        return checked(f"openenv:http://127.0.0.1:{port}", budget)
    finally:
        server.terminate()
        server.wait(20)


def main(options: Options) -> None:
    """Print a line per environment and way."""
    for env in options.envs:
        for way, check in (("wire", over_the_wire), ("in process", checked)):
            print(f"{env:14} {way:10} {check(env, options.budget)}", end="")
            print(f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
