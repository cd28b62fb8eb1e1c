"""One Java process: started with options that make play repeatable, monitored, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentgym.errors import EnvError, MissingExtra

if TYPE_CHECKING:
    from py4j.java_gateway import GatewayConnection

TIMEOUT = 120.0
"""Seconds a call may take before the process counts as hung; ordinary ones take milliseconds."""

HEAP_MB = 1536
"""Largest Java heap."""

ORDER_OPTIONS = (
    "-XX:+UnlockExperimentalVMOptions",
    # Sets in the simulator hash by identity: a constant makes their order, and with it the texts
    # and the meaning of ambiguous words, the same in every run.
    "-XX:hashCode=2",
)
OPTIONS = (
    f"-Xmx{HEAP_MB}m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    *ORDER_OPTIONS,
)
_INTERFACE = "scienceworld.runtime.pythonapi.PythonInterface"


def missing() -> str:
    """How to install what the simulator needs and is not there; empty when nothing is missing."""
    if find_spec("scienceworld") is None or find_spec("py4j") is None:
        return 'ScienceWorld is not installed: pip install "agentic-gym[scienceworld]"'
    if _java() is None:
        return (
            "ScienceWorld needs Java 11 or newer: apt-get install default-jre-headless "
            "(or set JAVA_HOME to one)"
        )
    return ""


class Handle(str):
    """The name of an object on the Java side."""


def static(name: str) -> str:
    """What stands for the handle of an object in calls of static methods of a class."""
    return f"z:{name}"


class JvmDied(EnvError):
    """The Java process ended, or had to be ended, in the middle of a call."""


class Jvm:
    """A Java process and the only connection to it, for one caller at a time.

    One connection means one Java thread: simulators share state (see ``shared_state``), and
    overlapping calls would change what happens in the episodes.
    """

    def __init__(self) -> None:
        """Start it.

        Raises:
            MissingExtra: There is no Java, or no simulator.
            EnvError: Java does not start.
        """
        if lacking := missing():
            raise MissingExtra(lacking)
        self._process, gateway = _launch()
        self._connection: GatewayConnection | None = None
        try:
            self._connection = _connect(gateway)
            self._discard_output()
        except Exception as problem:
            self.end()
            raise EnvError(f"cannot connect to the Java process: {problem}") from problem

    @property
    def alive(self) -> bool:
        """Whether it can be called; a hung one counts as alive until a call times out."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def resident_mb(self) -> float:
        """Memory it occupies, in MiB; 0 where the system does not report it."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="utf-8").split()[1])
        except (OSError, IndexError, ValueError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def create(self, name: str = _INTERFACE, *args: object) -> Handle:
        """The handle of a new object, a simulator unless another class is named."""
        return Handle(self._command(f"i\n{name}\n{_parts(args)}e\n", TIMEOUT))

    def forget(self, handle: str) -> None:
        """Let Java free an object; no error if the process has ended."""
        if self.alive:
            with contextlib.suppress(JvmDied):
                self._command(f"m\nd\n{handle}\ne\n", TIMEOUT)

    def call(self, handle: str, method: str, *args: object, seconds: float = TIMEOUT) -> Any:
        """Call a method of an object, or a static one of ``static(class name)``.

        Arguments and results are strings, numbers, booleans and handles.

        Raises:
            JvmDied: The process ended, or did not answer in time and was killed.
            EnvError: The simulator raised an exception.
        """
        return self._command(f"c\n{handle}\n{method}\n{_parts(args)}e\n", seconds)

    def singleton(self, name: str) -> Handle:
        """The handle of a Scala ``object``."""
        return Handle(self._command(f"r\nm\n{name}$\nMODULE$\ne\n", TIMEOUT))

    def texts(self, handle: str, method: str, *, seconds: float = TIMEOUT) -> tuple[str, ...]:
        """Call a method that returns a list of strings; joined in Java, so it is one answer."""
        made = self.call(handle, method, seconds=seconds)
        joined = self.call(static("java.lang.String"), "join", "\n", made)
        self.forget(made)
        return tuple(joined.split("\n")) if joined else ()

    def end(self) -> None:
        """Kill it at once; does nothing when it has ended."""
        self._process.kill()  # not a shutdown request: a hung process would not answer it
        self._process.wait()
        if self._connection is not None:
            self._connection.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def detach(self) -> None:
        """In a forked child: drop the parent's Java process without sending anything to it.

        Closing would send a message through the shared socket, or wait for a lock that a thread of
        the parent held. But the file descriptors must go, or Java would outlive the parent.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        socket = self._connection.socket if self._connection else None
        for end in (self._process.stdin, self._process.stdout, socket):
            if end is not None and end.fileno() >= 0:
                os.dup2(nowhere, end.fileno())
        os.close(nowhere)
        self._process.returncode = 0  # not a child of this process

    def _discard_output(self) -> None:
        """Turn off what the simulator prints, pages for each step, before it is loaded."""
        stream = self.call(static("java.io.OutputStream"), "nullOutputStream")
        self.call(static("java.lang.System"), "setOut", self.create("java.io.PrintStream", stream))

    def _command(self, command: str, seconds: float) -> Any:
        from py4j.protocol import Py4JNetworkError

        if self._connection is None or not self.alive:
            raise JvmDied("the Java process has ended")
        try:
            self._connection.socket.settimeout(seconds)
            answer = self._connection.send_command(command)
        except Py4JNetworkError as problem:
            hung = isinstance(problem.cause, TimeoutError)
            self.end()
            raise JvmDied(
                f"the Java process did not answer within {seconds:g} s and was killed"
                if hung
                else "the Java process ended during a call"
            ) from problem
        except BaseException:  # interrupted: the late answer would be read as that of the next call
            self.end()
            raise
        return self._value(answer)

    def _value(self, answer: str) -> Any:
        """Decode an answer of the gateway; objects stay in Java and are named by handles."""
        from py4j.protocol import get_return_value

        status, kind, rest = answer[:1], answer[1:2], answer[2:]
        if status == "y":
            return Handle(rest) if kind in "rlt" and kind else get_return_value(answer, None)
        reason = rest
        if kind == "r":
            reason = self._command(f"c\n{rest}\ntoString\ne\n", TIMEOUT)
            self.forget(rest)
        reason = " ".join(reason.split())[:300] or "no reason given"
        if "OutOfMemoryError" in reason:
            self.end()
            raise JvmDied(f"the Java process has no memory left and was killed: {reason}")
        raise EnvError(f"the simulator failed: {reason}")


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return (shutil.which("java", path=f"{home}/bin") if home else None) or shutil.which("java")


class _Gateway(NamedTuple):
    """Where Java listens, on the loopback address."""

    port: int
    token: str
    """Sent first on a connection: others on this machine must not call into Java."""


def _launch() -> tuple[subprocess.Popen[str], _Gateway]:
    """Start Java; returns the process and its gateway."""
    from py4j.java_gateway import find_jar_path
    from scienceworld.constants import JAR_PATH

    classpath = os.pathsep.join((find_jar_path(), JAR_PATH))
    gateway = ("py4j.GatewayServer", "--die-on-broken-pipe", "--enable-auth", "0")
    process = subprocess.Popen(
        [_java() or "java", *OPTIONS, "-classpath", classpath, *gateway],
        stdin=subprocess.PIPE,  # Java exits when it closes, so it never outlives this process
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=tempfile.gettempdir(),  # the simulator writes a table where it starts
    )
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    output = ""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal():
            token = process.stdout.readline().strip()
            # The gateway may print; a full pipe would block it.
            threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
            watchdog.cancel()
            return process, _Gateway(int(line), token)
        output = output or line.strip()
    watchdog.cancel()
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin and process.stdin.close()
    raise EnvError(f"Java did not start: {output or 'it printed nothing'}")


def _drain(pipe: Any) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed by the other thread
        for _ in pipe:
            pass


def _parts(args: Sequence[object]) -> str:
    from py4j.protocol import get_command_part

    return "".join(
        f"r{arg}\n" if isinstance(arg, Handle) else get_command_part(arg) for arg in args
    )


def _connect(gateway: _Gateway) -> GatewayConnection:
    from py4j.java_gateway import GatewayConnection, GatewayParameters

    connection = GatewayConnection(GatewayParameters(port=gateway.port, auth_token=gateway.token))
    connection.start()
    return connection
