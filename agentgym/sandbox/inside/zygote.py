"""The fork server: imports the libraries once, and forks a confined interpreter per session.

Three processes: this one; a supervisor per session, which runs no foreign code and kills the
interpreter when its client goes away; and the interpreter, process 1 of its own namespace.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from . import cells, confine

_COMMON = (
    "bisect cmath collections copy csv dataclasses datetime decimal enum fractions functools "
    "heapq itertools json math operator pathlib random re statistics string textwrap time typing"
)


def main() -> None:
    """Serve sessions: each message is a JSON object, with the link and the control socket."""
    order = json.loads(sys.argv[1])
    server = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which then closes.
    loaded = []
    for name in (*_COMMON.split(), *order["preload"]):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            loaded.append(name)
    gc.collect()
    gc.freeze()
    server.send(json.dumps({"loaded": loaded}).encode())
    while True:
        message, fds, _, _ = socket.recv_fds(server, 65_536, 2)
        if not message:
            break
        if os.fork() == 0:
            # Neither it nor its child may ever come back here, whatever they raise.
            try:
                server.close()
                _supervise(fds[0], fds[1], json.loads(message))
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)


def _supervise(link: int, control: int, order: dict[str, Any]) -> None:
    """Start the interpreter, wait for it or for the client to go, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    layers, missing, folder = _isolate(order)
    pid = os.fork()
    if pid == 0:
        os.close(control)
        _interpret(link, folder, order, layers, missing)
        os._exit(0)
    os.close(link)
    ended = os.pidfd_open(pid)
    select.select([control, ended], [], [])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    if not os.path.ismount(folder):
        shutil.rmtree(folder, ignore_errors=True)
    end = {"exit": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
    with contextlib.suppress(OSError):
        os.write(control, json.dumps(end).encode())


def _isolate(order: dict[str, Any]) -> tuple[list[str], dict[str, str], str]:
    """The layers around the interpreter: what worked, why what did not, and the empty folder."""
    layers: list[str] = []
    missing: dict[str, str] = {}
    folder: str = order["folder"]

    def put(name: str, layer: Callable[[], None]) -> None:
        try:
            layer()
            layers.append(name)
        except OSError as problem:
            missing[name] = str(problem)

    if os.getuid() == 0 and order["nobody"]:
        put("nobody", confine.become_nobody)
    put("namespaces", confine.leave_namespaces)
    put("disk", lambda: confine.mount_empty(folder, order["disk"], order["files"]))
    if "disk" not in layers:
        folder = tempfile.mkdtemp(dir=folder)
    return layers, missing, folder


def _interpret(
    link: int, folder: str, order: dict[str, Any], layers: list[str], missing: dict[str, str]
) -> None:
    """Give up all rights, then run cells until the client goes."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(link, 3)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.chdir(folder)
    random.seed(0)
    if "numpy" in sys.modules:
        numpy: Any = sys.modules["numpy"]
        numpy.random.seed(0)
    with contextlib.suppress(OSError):
        confine.drop_capabilities()
    steps: list[tuple[str, Callable[[], None]]] = [
        ("rlimits", lambda: confine.limit(**order["rlimits"])),
        ("landlock", lambda: confine.landlock(order["readable"], folder)),
        ("seccomp", confine.seccomp),
    ]
    for name, layer in steps:
        try:
            layer()
            layers.append(name)
        except (OSError, ValueError) as problem:
            missing[name] = str(problem)
    cells.write_frame(3, {"layers": layers, "missing": missing})
    cells.serve(3, order["output"])
