"""The server: imports the libraries once, and forks a confined interpreter per session.

Or, where the order has a command, starts that for each session, such as bubblewrap around an
interpreter. It runs no untrusted code itself. It kills an interpreter, process 1 of its own
namespace, when the client closes the session's control socket or exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

from . import confine
from .interpreter import interpret, warm

_STDERR = "stderr"
"""File for the standard error of a command."""


class Child(NamedTuple):
    """A running interpreter."""

    pid: int
    ended: int
    """Descriptor that becomes readable when it exits."""
    control: int
    """Descriptor that becomes readable when the client closes it."""
    folder: str
    """Its folder on disk, used where no disk in memory can be mounted; removed with it."""


def main() -> None:
    """Serve sessions: each message is a JSON object, with the link and the control socket."""
    order = json.loads(sys.argv[1])
    server = socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The client handles Ctrl-C.
    if os.getuid() == 0 and order["nobody"]:
        confine.become_nobody()
    warm(order["preload"])
    server.send(b"ready")
    try:
        _serve(server)
    finally:
        # The client may have exited without cleaning up.
        shutil.rmtree(order["folder"], ignore_errors=True)
        os._exit(0)


def _serve(server: socket.socket) -> None:
    """Start, kill and reap interpreters until the client disconnects; never blocks on one."""
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
                for each in fds:
                    os.set_inheritable(each, False)
                child = _start(fds[0], fds[1], json.loads(message))
                by_control[child.control] = by_end[child.ended] = child
                poll.register(child.control, select.POLLIN)
                poll.register(child.ended, select.POLLIN)
            elif fd in by_control:
                # The kernel takes a while; the exit arrives as an event of `ended`.
                poll.unregister(fd)
                os.kill(by_control.pop(fd).pid, signal.SIGKILL)
            elif fd in by_end:
                child = by_end.pop(fd)
                poll.unregister(fd)
                if by_control.pop(child.control, None):
                    poll.unregister(child.control)
                _reap(child)


def _start(link: int, control: int, order: dict[str, Any]) -> Child:
    """Start an interpreter."""
    own = f"{order['folder']}/{os.urandom(8).hex()}"
    if order["command"]:
        pid = _spawn(link, own, order["command"])
    else:
        pid = _fork(link, control, own, order)
    os.close(link)
    return Child(pid, os.pidfd_open(pid), control, own)


def _fork(link: int, control: int, own: str, order: dict[str, Any]) -> int:
    """Fork an interpreter, into new namespaces where the kernel permits it."""
    missing: dict[str, str] = {}
    user, group = os.getuid(), os.getgid()
    try:
        pid = confine.fork_apart()
    except OSError as problem:
        missing["namespaces"] = str(problem)
        pid = os.fork()
    if pid == 0:
        # The child must never return from here.
        try:
            os.close(control)
            if not missing:
                confine.keep_names(user, group)
            nobody = order["nobody"] and user == confine.NOBODY
            layers = ["nobody"] * nobody + ["namespaces"] * (not missing)
            interpret(link, own, order, layers, missing)
        finally:
            os._exit(1)
    return pid


def _spawn(link: int, own: str, command: list[str]) -> int:
    """Start a command with the link as standard input; its standard error goes to a file."""
    os.mkdir(own)
    write = os.O_WRONLY | os.O_CREAT
    files = [
        (os.POSIX_SPAWN_DUP2, link, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, f"{own}/{_STDERR}", write, 0o600),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files)


def _reap(child: Child) -> None:
    """Clean up after an interpreter that exited, and report its exit to the client."""
    _, status, usage = os.wait4(child.pid, 0)
    os.close(child.ended)
    stderr = Path(child.folder, _STDERR)
    words = stderr.read_text(encoding="utf-8", errors="replace")[-500:] if stderr.exists() else ""
    shutil.rmtree(child.folder, ignore_errors=True)
    cpu = usage.ru_utime + usage.ru_stime
    end = {"exit": os.waitstatus_to_exitcode(status), "cpu": cpu, "words": words}
    with contextlib.suppress(OSError), socket.socket(fileno=child.control) as control:
        control.send(json.dumps(end).encode(), socket.MSG_NOSIGNAL)
