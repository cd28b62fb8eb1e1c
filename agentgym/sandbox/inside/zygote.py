"""The fork server: imports the libraries once, and forks a confined interpreter per session.

It runs no foreign code itself. It kills an interpreter, process 1 of its own namespace, when the
client closes the session's control socket or is gone.
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
from collections.abc import Callable
from typing import Any, NamedTuple

from . import cells, confine

_COMMON = (
    "bisect cmath collections copy csv dataclasses datetime decimal enum fractions functools "
    "heapq itertools json math operator pathlib random re statistics string textwrap time typing"
)


class Child(NamedTuple):
    """An interpreter that runs."""

    pid: int
    ended: int
    """Descriptor that is readable once it ended."""
    control: int
    """Descriptor that is readable once the client closed it."""
    folder: str
    """A real folder of its own, where there is no disk in memory; removed with it."""


def main() -> None:
    """Serve sessions: each message is a JSON object, with the link and the control socket."""
    order = json.loads(sys.argv[1])
    server = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client, which then closes.
    if os.getuid() == 0 and order["nobody"]:
        confine.become_nobody()
    for name in (*_COMMON.split(), *order["preload"]):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "numpy" in sys.modules:
        # Here, since it loads a library; interpreters start from this state.
        numpy: Any = sys.modules["numpy"]
        numpy.random.seed(0)
    gc.collect()
    gc.freeze()
    server.send(b"ready")
    try:
        _serve(server)
    finally:
        # The client may be gone without having tidied up.
        shutil.rmtree(order["folder"], ignore_errors=True)
        os._exit(0)


def _serve(server: socket.socket) -> None:
    """Start, kill and bury interpreters until the client goes; it never waits for one of them."""
    poll = select.poll()
    poll.register(server, select.POLLIN)
    by_control: dict[int, Child] = {}
    by_end: dict[int, Child] = {}
    gone = False
    while by_end or not gone:
        for fd, _ in poll.poll():
            if fd == server.fileno():
                message, fds, _, _ = socket.recv_fds(server, 65_536, 2)
                if not message:
                    gone = True
                    poll.unregister(server)
                    break
                child = _start(fds[0], fds[1], json.loads(message))
                by_control[child.control] = by_end[child.ended] = child
                poll.register(child.control, select.POLLIN)
                poll.register(child.ended, select.POLLIN)
            elif fd in by_control:
                # Its death takes the kernel a while; the next thing heard of it is its end.
                poll.unregister(fd)
                os.kill(by_control.pop(fd).pid, signal.SIGKILL)
            elif fd in by_end:
                child = by_end.pop(fd)
                poll.unregister(fd)
                if by_control.pop(child.control, None):
                    poll.unregister(child.control)
                _bury(child)


def _start(link: int, control: int, order: dict[str, Any]) -> Child:
    """Fork an interpreter, into namespaces of its own where the kernel lets us."""
    missing: dict[str, str] = {}
    own = f"{order['folder']}/{os.urandom(8).hex()}"
    user, group = os.getuid(), os.getgid()
    try:
        pid = confine.fork_apart()
    except OSError as problem:
        missing["namespaces"] = str(problem)
        pid = os.fork()
    if pid == 0:
        # It may never come back here, whatever it raises.
        try:
            os.close(control)
            if not missing:
                confine.keep_names(user, group)
            _interpret(link, own, order, missing)
        finally:
            os._exit(1)
    os.close(link)
    return Child(pid, os.pidfd_open(pid), control, own)


def _bury(child: Child) -> None:
    """Clean up after an interpreter that ended, and tell the client how it did."""
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.ended)
    shutil.rmtree(child.folder, ignore_errors=True)
    end = {"exit": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
    with contextlib.suppress(OSError), socket.socket(fileno=child.control) as control:
        control.send(json.dumps(end).encode(), socket.MSG_NOSIGNAL)


def _interpret(link: int, own: str, order: dict[str, Any], missing: dict[str, str]) -> None:
    """Give up all rights, then run cells until the client goes."""
    layers = ["nobody"] if order["nobody"] and os.getuid() == confine.NOBODY else []
    layers += [] if missing else ["namespaces"]

    def put(name: str, layer: Callable[[], None]) -> None:
        try:
            layer()
            layers.append(name)
        except (OSError, ValueError) as problem:
            missing[name] = str(problem)

    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.dup2(link, 3)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    folder: str = order["folder"]
    put("disk", lambda: confine.mount_empty(folder, order["disk"], order["files"]))
    if "disk" in missing:
        folder = own
        os.mkdir(folder)
    os.chdir(folder)
    random.seed(0)
    with contextlib.suppress(OSError):
        confine.drop_capabilities()
    put("rlimits", lambda: confine.limit(**order["rlimits"]))
    put("landlock", lambda: confine.landlock(order["readable"], folder))
    put("seccomp", confine.seccomp)
    cells.write_frame(3, {"layers": layers, "missing": missing})
    cells.serve(3, order["output"])
