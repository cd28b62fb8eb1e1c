"""One Java machine: started with the options that make play repeatable, watched, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym.errors import EnvError, MissingExtra

if TYPE_CHECKING:
    from py4j.java_gateway import GatewayConnection

PATIENCE = 120.0
"""Seconds a call may take before the machine counts as hung; ordinary ones take milliseconds."""

HEAP_MB = 1536
"""Largest Java heap."""

OPTIONS = (
    f"-Xmx{HEAP_MB}m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:+UnlockExperimentalVMOptions",
    # Sets in the simulator hash by identity: a constant makes their order, and so the texts and
    # the meaning of ambiguous words, the same in every run.
    "-XX:hashCode=2",
)
_INTERFACE = "scienceworld.runtime.pythonapi.PythonInterface"


def missing() -> str:
    """How to install what the simulator needs and this machine lacks; empty when all is there."""
    if find_spec("scienceworld") is None or find_spec("py4j") is None:
        return 'ScienceWorld is not installed: pip install "agentic-gym[scienceworld]"'
    if _java() is None:
        return (
            "ScienceWorld needs Java 11 or newer: apt-get install default-jre-headless "
            "(or set JAVA_HOME to one)"
        )
    return ""


class MachineDied(EnvError):
    """The Java machine ended, or had to be ended, in the middle of a call."""


class Machine:
    """A Java process and the only connection to it, for one caller at a time.

    One connection means one Java thread: simulators share counters, and calls that overlap would
    change what happens in the episodes.
    """

    def __init__(self) -> None:
        """Start it.

        Raises:
            MissingExtra: There is no Java, or no simulator.
            EnvError: Java does not start.
        """
        if lacking := missing():
            raise MissingExtra(lacking)
        self._process, port = _launch()
        self._connection: GatewayConnection | None = None
        try:
            self._connection = _connect(port)
        except Exception as problem:
            self.end()
            raise EnvError(f"cannot connect to the Java machine: {problem}") from problem

    @property
    def alive(self) -> bool:
        """It can be called; a hung one counts as alive until a call finds out."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def resident_mb(self) -> float:
        """Memory it occupies, in MiB; 0 where the system does not say."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def create(self) -> str:
        """A new simulator; the handle by which it is called."""
        return str(self._command(f"i\n{_INTERFACE}\ne\n", PATIENCE))

    def forget(self, handle: str) -> None:
        """Let Java free a simulator or a list; no error if the machine has gone."""
        if self.alive:
            with contextlib.suppress(MachineDied):
                self._command(f"m\nd\n{handle}\ne\n", PATIENCE)

    def call(self, handle: str, method: str, *args: object, seconds: float = PATIENCE) -> Any:
        """Call a method of a simulator: texts, numbers and truth values in and out.

        Raises:
            MachineDied: The machine ended, or did not answer in time and was killed.
            EnvError: The simulator raised an exception.
        """
        from py4j.protocol import get_command_part

        parts = "".join(map(get_command_part, args))
        return self._command(f"c\n{handle}\n{method}\n{parts}e\n", seconds)

    def texts(self, handle: str, method: str) -> tuple[str, ...]:
        """Call a method that answers with a list of texts."""
        made = self.call(handle, method)
        found = tuple(self.call(made, "get", index) for index in range(self.call(made, "size")))
        self.forget(made)
        return found

    def end(self) -> None:
        """Kill it at once; does nothing when it has ended."""
        self._process.kill()  # not a polite shutdown: a hung machine would not hear it
        self._process.wait()
        if self._connection is not None:
            self._connection.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's machine without a word to it.

        Closing would tell the machine through the shared socket, or wait for a lock that a
        thread of the parent held. The open ends must go, though, or Java would outlive the parent.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        socket = self._connection.socket if self._connection else None
        for end in (self._process.stdin, self._process.stdout, socket):
            if end is not None and end.fileno() >= 0:
                os.dup2(nowhere, end.fileno())
        os.close(nowhere)
        self._process.returncode = 0  # it is no child of this process

    def _command(self, command: str, seconds: float) -> Any:
        from py4j.protocol import Py4JNetworkError

        if self._connection is None or not self.alive:
            raise MachineDied("the Java machine has ended")
        try:
            self._connection.socket.settimeout(seconds)
            answer = self._connection.send_command(command)
        except Py4JNetworkError as problem:
            hung = isinstance(problem.cause, TimeoutError)
            self.end()
            raise MachineDied(
                f"the Java machine did not answer within {seconds:g} s and was killed"
                if hung
                else "the Java machine ended during a call"
            ) from problem
        except BaseException:  # interrupted: the answer to come would be taken for the next
            self.end()
            raise
        return self._value(answer)

    def _value(self, answer: str) -> Any:
        """What an answer of the gateway means; objects stay on the other side, as handles."""
        from py4j.protocol import get_return_value

        status, kind, rest = answer[:1], answer[1:2], answer[2:]
        if status == "y":
            return rest if kind in "rlt" and kind else get_return_value(answer, None)
        told = rest
        if kind == "r":
            told = self._command(f"c\n{rest}\ntoString\ne\n", PATIENCE)
            self.forget(rest)
        told = " ".join(told.split())[:300] or "no reason given"
        if "OutOfMemoryError" in told:
            self.end()
            raise MachineDied(f"the Java machine has no memory left and was killed: {told}")
        raise EnvError(f"the simulator failed: {told}")


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")


def _launch() -> tuple[subprocess.Popen[str], int]:
    """Start Java; returns the process and the port its gateway listens on."""
    from py4j.java_gateway import find_jar_path
    from scienceworld.constants import JAR_PATH

    classpath = os.pathsep.join((find_jar_path(), JAR_PATH))
    gateway = ("py4j.GatewayServer", "--die-on-broken-pipe", "0")
    process = subprocess.Popen(
        [_java() or "java", *OPTIONS, "-classpath", classpath, *gateway],
        stdin=subprocess.PIPE,  # Java exits when it closes, so it never outlives this process
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=tempfile.gettempdir(),  # the simulator leaves a table where it starts
    )
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal():
            # The simulator prints now and then; a full pipe would stop it for ever.
            threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
            watch.cancel()
            return process, int(line)
        said = said or line.strip()
    watch.cancel()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin and process.stdin.close()
    raise EnvError(f"Java did not start: {said or 'it said nothing'}")


def _drain(pipe: Any) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed by the other thread
        for _ in pipe:
            pass


def _connect(port: int) -> GatewayConnection:
    from py4j.java_gateway import GatewayConnection, GatewayParameters

    connection = GatewayConnection(GatewayParameters(port=port))
    connection.start()
    return connection
