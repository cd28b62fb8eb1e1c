"""A server process: started, monitored, restarted and stopped here."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from agentgym.errors import EngineError
from agentgym.utils.access import TOKEN


class ServerProcess:
    """A Python module that serves HTTP on this machine and answers ``/health`` when it is ready.

    Args:
        module: Run as ``python -m module *arguments --port PORT``; must exit when its standard
            input is closed.
        arguments: Its command line.
        environment: Variables that are set unless this process sets them.
        log: File to which its output is appended.
        deadline: Seconds until it must be ready.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path,
        deadline: float,
    ) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._command = [sys.executable, "-m", module, *arguments, "--port", str(self.port)]
        self.token = secrets.token_urlsafe(32)
        """Requests need it as bearer token, also from this machine: weights are sent this way."""
        self._environment = {**environment, **os.environ, TOKEN: self.token}
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether the process runs, ready or not."""
        return self._process is not None and self._process.poll() is None

    def ensure(self) -> bool:
        """Start it unless it runs and wait until it is ready; returns whether it was started.

        Raises:
            EngineError: It exited or was not ready in time; with the last line of its log.
        """
        with self._lock:
            if self.alive:
                return False
            self._end()
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait()
            return True

    def stop(self) -> None:
        """Kill it and its child processes."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        # Also if it has exited itself: its children may still run.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None, "it was opened"
        self._process.stdin.close()
        self._process = None

    def _wait(self) -> None:
        end = time.monotonic() + self._deadline
        while time.monotonic() < end:
            if not self.alive:
                raise EngineError(f"the server ended before it was ready: {self._log_summary()}")
            try:
                if httpx.get(
                    f"{self.url}/health",
                    headers={"Authorization": f"Bearer {self.token}"},
                    timeout=5.0,
                    verify=False,
                    trust_env=False,
                ).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        words = self._log_summary()
        self._end()
        raise EngineError(f"the server was not ready in {self._deadline:g} s: {words}")

    def _log_summary(self) -> str:
        """The last line that contains an error, else the last line; and the path of the log."""
        lines = [
            line.strip()
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ]
        lines = [line for line in lines if line] or ["the log is empty"]
        errors = [line for line in lines if "Error" in line]
        return f"{(errors or lines)[-1][-300:]} (log: {self.log})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
