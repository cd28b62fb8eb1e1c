"""Client of the fork server: one per process and set of libraries."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from agentgym.errors import EnvError
from agentgym.sandbox import wrappers
from agentgym.sandbox.limits import Backend, SandboxLimits

_START = (
    "import sys; sys.path.insert(0, sys.argv.pop()); import inside.zygote; del sys.path[0]; "
    "inside.zygote.main()"
)
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/local/lib", "/usr/share/zoneinfo")
STARTING = 60.0
"""Seconds to start a server or an interpreter."""


@cache
def server(process: int, preload: tuple[str, ...], backend: Backend) -> Server:
    """The server of this process; a forked process must not share its sockets."""
    return Server(preload, backend)


class Server:
    """A process that imports the libraries once and forks an interpreter for each session.

    With another backend it starts a wrapped process per session, which imports the libraries.
    It starts with an empty environment and only its own socket, so nothing of the client can leak
    into an interpreter.
    """

    def __init__(self, preload: tuple[str, ...], backend: Backend) -> None:
        self._preload, self._backend = preload, backend
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._folder = ""
        atexit.register(self.close)

    def open(self, limits: SandboxLimits) -> tuple[socket.socket, socket.socket]:
        """Start an interpreter; returns its data and control sockets. Closing the latter kills it.

        Raises:
            Unconfined: The backend does not work on this machine.
            EnvError: The server does not start.
        """
        if self._backend != "fork-server":
            wrappers.program(self._backend)
        link, inner_link = socket.socketpair()
        control, inner_control = socket.socketpair()
        with inner_link, inner_control:
            fds = [inner_link.fileno(), inner_control.fileno()]
            with self._lock:
                for attempt in (1, 2):
                    try:
                        socket.send_fds(self._running(), [self._order(limits)], fds)
                        break
                    except OSError as problem:
                        self._stop()
                        if attempt == 2:
                            link.close()
                            control.close()
                            raise EnvError(f"the sandbox does not start: {problem}") from problem
        return link, control

    def close(self) -> None:
        """Stop the server; interpreters stop with their sessions."""
        with self._lock:
            self._stop()

    def _running(self) -> socket.socket:
        """The socket of the server, started if needed."""
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._socket is None:
            self._folder = tempfile.mkdtemp(prefix="agentgym-sandbox-")
            os.chmod(self._folder, 0o1777)
            self._socket, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            order = {
                "preload": self._preload if self._backend == "fork-server" else (),
                "nobody": self._nobody(),
                "folder": self._folder,
            }
            with inner:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-s", "-P", "-c", _START),
                        json.dumps(order),
                        str(wrappers.INSIDE.parent),
                    ],
                    stdin=inner.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=wrappers.ENVIRONMENT,
                )
            self._socket.settimeout(STARTING)
            if not self._socket.recv(65_536):
                raise OSError("its server exited at startup")
        return self._socket

    def _order(self, limits: SandboxLimits) -> bytes:
        order: dict[str, object] = {
            "command": (),
            "folder": self._folder,
            "nobody": self._nobody(),
            "readable": _readable(),
            "disk": limits.disk,
            "files": limits.files,
            "output": limits.output,
            "rlimits": {"memory": limits.memory, "cpu": limits.cpu, "file": limits.disk},
        }
        if self._backend != "fork-server":
            order["command"] = self._command(limits, order)
        return json.dumps(order).encode()

    def _command(self, limits: SandboxLimits, order: dict[str, object]) -> list[str]:
        """The command that starts an interpreter in its own process."""
        apart = {
            **order,
            "folder": wrappers.BOX,
            "preload": self._preload,
            "packages": _packages(),
        }
        if self._backend == "bubblewrap":
            return wrappers.bubblewrap(_readable(), limits.disk, json.dumps(apart))
        unlimited = json.dumps({**apart, "files": 0})
        return wrappers.gvisor(_readable(), Path(self._folder), unlimited)

    def _nobody(self) -> bool:
        """Whether interpreters can run as the user ``nobody``.

        In their own processes they also have to read their code. gVisor maps users itself.
        """
        if self._backend == "bubblewrap":
            return _for_nobody() and _open_to_all(str(wrappers.INSIDE))
        return _for_nobody() and self._backend == "fork-server"

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


@cache
def _readable() -> tuple[str, ...]:
    """Library folders: Python, installed packages, system."""
    return (os.path.realpath(f"{sys.base_prefix}/lib"), *_packages(), *_LIBRARIES)


@cache
def _packages() -> tuple[str, ...]:
    """Folders of installed packages."""
    return tuple(path for path in sys.path if Path(path).name in ("site-packages", "dist-packages"))


def _for_nobody() -> bool:
    """The user ``nobody`` can read the libraries."""
    return all(map(_open_to_all, _readable()))


@cache
def _open_to_all(folder: str) -> bool:
    """Any user can enter a folder, or it does not exist."""
    way = Path(folder).resolve()
    return not way.exists() or all(part.stat().st_mode & 0o001 for part in (way, *way.parents))
