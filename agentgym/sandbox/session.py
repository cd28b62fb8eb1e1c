"""Running cells in an interpreter, all replies of which are untrusted."""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import Any

from agentgym.errors import ConfigError, EnvError, Unconfined
from agentgym.sandbox.limits import LAYERS, REQUIRED, Backend, Result, SandboxLimits, Status
from agentgym.sandbox.server import STARTING, server

PRELOAD = ("numpy", "sympy")
"""Libraries preloaded in every interpreter, where they are installed."""

_SIGNALS = {each.value: each.name for each in signal.Signals}


class Sandbox:
    """Creates confined interpreters; see ``LAYERS``.

    Raises:
        ConfigError: ``backend`` or ``require`` is unknown.
    """

    def __init__(
        self,
        limits: SandboxLimits | None = None,
        *,
        preload: Iterable[str] = PRELOAD,
        require: Iterable[str] | None = None,
        backend: Backend = "fork-server",
    ) -> None:
        """Processes start at the first cell.

        Args:
            limits: Resource limits of a session.
            preload: Libraries to import once, before any session.
            require: Layers without which nothing runs; by default all of the backend.
            backend: How interpreters are isolated; the other two start slowly, but add a barrier.
        """
        if backend not in REQUIRED:
            raise ConfigError(f"backend: got {backend!r}, expected one of {', '.join(REQUIRED)}")
        self.limits = limits or SandboxLimits()
        self.preload = tuple(preload)
        self.backend: Backend = backend
        self.require = frozenset(REQUIRED[backend] if require is None else require)
        if unknown := self.require - {*LAYERS, "nobody"}:
            raise ConfigError(
                f"require: got {', '.join(sorted(unknown))}, expected {', '.join(LAYERS)}, nobody"
            )

    def session(self) -> Session:
        """An interpreter that keeps its variables; it starts at the first cell."""
        return Session(self)

    def run(self, code: str) -> Result:
        """Run one program in a new interpreter."""
        session = self.session()
        try:
            return session.run(code)
        finally:
            session.close()


class Session:
    """An interpreter with variables, replaced when it dies.

    A fork replays the cells of the original in its own interpreter at its first cell; so the
    state is the same as far as cells are deterministic, which the clock and memory addresses are
    not. Random generators start from a fixed seed.
    """

    def __init__(self, sandbox: Sandbox, history: tuple[str, ...] = ()) -> None:
        self.sandbox = sandbox
        self.history = history
        """The cells that produced the variables."""
        self.layers: tuple[str, ...] = ()
        """The layers in force, once the interpreter runs."""
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._number = 0

    def run(self, code: str) -> Result:
        """Run a cell; it always returns a result.

        Raises:
            Unconfined: This machine lacks a required layer.
            EnvError: The sandbox does not start.
        """
        if len(code) > self.sandbox.limits.code:
            longest = self.sandbox.limits.code
            error = f"the cell has {len(code)} characters, expected at most {longest}"
            return Result(Status.ERROR, error=error)
        if self._sockets is None:
            self._open()
            for cell in self.history:
                if self._run(cell).lost:
                    break
        result = self._run(code)
        self.history = () if result.lost else (*self.history, code)
        return result

    def fork(self) -> Session:
        """An independent session in the same state."""
        return Session(self.sandbox, self.history)

    def close(self) -> None:
        """Stop the interpreter; a later cell starts a new one."""
        self._kill()
        self.history = ()

    def __del__(self) -> None:
        self._kill()

    def _kill(self) -> None:
        if self._sockets is not None:
            for each in self._sockets:
                each.close()
            self._sockets = None

    def _open(self) -> None:
        """Start an interpreter and check its layers."""
        sandbox = self.sandbox
        here = f"{sys.platform} on {platform.machine()}"
        if here != "linux on x86_64":
            raise Unconfined(f"the sandbox needs Linux on x86-64, this is {here}")
        self._sockets = server(os.getpid(), sandbox.preload, sandbox.backend).open(sandbox.limits)
        self._number = 0
        try:
            hello = self._receive(time.monotonic() + STARTING)
        except (EOFError, OSError, ValueError) as problem:
            cause = str(problem) or self._cause()
            self._kill()
            raise EnvError(f"the sandbox does not start: {cause}") from problem
        self.layers = tuple(hello["layers"])
        if lacking := sandbox.require - set(self.layers):
            self._kill()
            reasons = "; ".join(
                f"{name} ({hello['missing'].get(name, 'not applied')})" for name in sorted(lacking)
            )
            raise Unconfined(
                f"this machine cannot confine untrusted code: it lacks {reasons}. Use another "
                f"machine, or require fewer layers of `Sandbox`"
            )

    def _run(self, code: str) -> Result:
        if self._sockets is None:
            self._open()
        assert self._sockets is not None, "it was just opened"
        limits = self.sandbox.limits
        self._number += 1
        start = time.monotonic()
        try:
            self._send({"number": self._number, "code": code, "wall": limits.wall})
            reply = self._receive(start + limits.wall + limits.grace)
            result = _checked_result(reply, self._number, limits)
        except TimeoutError:
            error = f"killed after {limits.wall:g} s"
            result = Result(Status.TIMEOUT, error=error, lost=True)
        except (EOFError, OSError):
            result = Result(Status.CRASHED, error=self._cause(), lost=True)
        except (ValueError, RecursionError):
            result = Result(
                Status.GARBLED, error="the reply of the interpreter is invalid", lost=True
            )
        if result.lost:
            self._kill()
        return result._replace(wall=time.monotonic() - start)

    def _send(self, request: dict[str, object]) -> None:
        assert self._sockets is not None, "nothing is sent before it is opened"
        data = json.dumps(request).encode()
        self._sockets[0].settimeout(self.sandbox.limits.wall)
        self._sockets[0].sendall(struct.pack("!I", len(data)) + data)

    def _receive(self, deadline: float) -> dict[str, Any]:
        """One frame.

        Raises:
            EOFError: The connection is closed.
            TimeoutError: The deadline passed.
            ValueError: It is too long, not JSON, or followed by more.
        """
        assert self._sockets is not None, "nothing is received before it is opened"
        link = self._sockets[0]
        length = struct.unpack("!I", _exactly(link, 4, deadline))[0]
        if length > 65_536 + 64 * self.sandbox.limits.output:
            raise ValueError(f"a frame of {length} bytes")
        found = json.loads(_exactly(link, length, deadline))
        link.settimeout(0)
        try:
            more = link.recv(1)
        except BlockingIOError:
            more = b""
        if more or not isinstance(found, dict):
            raise ValueError("more than one reply")
        return found

    def _cause(self) -> str:
        """How the interpreter ended, as its supervisor reports."""
        assert self._sockets is not None, "it ended while it was asked"
        try:
            self._sockets[1].settimeout(self.sandbox.limits.grace)
            end = json.loads(self._sockets[1].recv(4096))
            code, cpu, words = int(end["exit"]), float(end["cpu"]), str(end["words"])
        except (OSError, ValueError):
            return "the interpreter ended"
        # Bubblewrap and gVisor report a signal as 128 + number, as shells do.
        number = -code if code < 0 else code - 128
        if number == signal.SIGKILL and cpu >= 0.5 * self.sandbox.limits.cpu:
            return f"killed after {self.sandbox.limits.cpu} s of CPU time"
        if number in _SIGNALS:
            return f"the interpreter was ended by {_SIGNALS[number]}"
        last = words.strip().rpartition("\n")[2]
        return f"the interpreter left with status {code}" + (f": {last}" if last else "")


def _exactly(link: socket.socket, count: int, deadline: float) -> bytes:
    data = b""
    while len(data) < count:
        link.settimeout(max(0.001, deadline - time.monotonic()))
        more = link.recv(min(count - len(data), 65_536))
        if not more:
            raise EOFError
        data += more
    return data


def _checked_result(reply: dict[str, Any], number: int, limits: SandboxLimits) -> Result:
    """Validate a reply, which the program may have forged.

    Raises:
        ValueError: It is not a valid reply.
    """
    texts = [reply.get(name) for name in ("stdout", "value", "error")]
    cpu = reply.get("cpu")
    if (
        reply.get("number") != number
        or not all(isinstance(text, str) and len(text) <= limits.output + 200 for text in texts)
        or not isinstance(cpu, float)
        or not math.isfinite(cpu)
    ):
        raise ValueError("not a reply of an interpreter")
    # Lone surrogates cannot be encoded.
    stdout, value, error = (str(text).encode(errors="replace").decode() for text in texts)
    return Result(Status(reply["status"]), stdout, value, error, cpu=cpu)
