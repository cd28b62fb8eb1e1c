"""Server processes for tests of OpenEnv: an environment of ours, or a Python file."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATIENT = 240
"""Seconds: a server imports for a minute on a machine that does much else."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def process(command, port, cwd=None, **environ):
    """A server process, and its address once it answers."""
    path = os.pathsep.join(
        str(each) for each in (ROOT, ROOT / "envs", ROOT / "tests", *sys.path) if each
    )
    running = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENT
        while True:
            if running.poll() is not None:
                raise RuntimeError(running.stderr.read().decode()[-2000:])
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        yield url
    finally:
        running.terminate()
        running.wait(10)
        running.stderr.close()


@contextlib.contextmanager
def serving(*words, cwd=None, **environ):
    """``agentgym serve WORDS --openenv``."""
    port = free_port()
    command = [sys.executable, "-m", "agentgym", "serve", *words, "--openenv", "--port", str(port)]
    with process(command, port, cwd, **environ) as url:
        yield url


def get(url, path, **headers):
    request = urllib.request.Request(url + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()
