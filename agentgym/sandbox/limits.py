"""Resource limits of a program, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from agentgym.utils.bounds import above, at_least

LAYERS = ("namespaces", "disk", "rlimits", "landlock", "seccomp")
"""The layers that confine an interpreter, outermost first.

``namespaces``: no network, no view of other processes, no capabilities. ``disk``: only an empty
folder in memory is writable. ``rlimits``: memory, CPU time, files. ``landlock``: only the libraries
and that folder can be opened. ``seccomp``: an allowlist of system calls, without any that starts a
process, opens a socket or sends a signal. A sixth, ``nobody`` (the Unix user), applies where the
client is root and the libraries are world-readable.
"""

Backend = Literal["fork-server", "bubblewrap", "gvisor"]
"""How an interpreter is isolated: forked by our server, or wrapped by a program."""
REQUIRED: dict[Backend, tuple[str, ...]] = {
    "fork-server": LAYERS,
    "bubblewrap": LAYERS,
    # gVisor's kernel has no Landlock, but exposes only the libraries.
    "gvisor": ("namespaces", "disk", "rlimits", "seccomp"),
}
"""Layers that a backend requires by default."""


class Status(StrEnum):
    """How a program ended."""

    OK = "ok"
    ERROR = "error"
    """It raised an exception."""
    TIMEOUT = "timeout"
    """It ran longer than ``SandboxLimits.wall``."""
    MEMORY = "memory"
    """It requested more than ``SandboxLimits.memory``."""
    CRASHED = "crashed"
    """Its interpreter died: killed at the CPU limit, or crashed by the program."""
    GARBLED = "garbled"
    """Its interpreter sent an invalid reply and was killed."""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """Resource limits of a session."""

    wall: float = 5.0
    """Wall-clock seconds of one cell."""
    grace: float = 1.0
    """Extra seconds for a cell that ignores the alarm; then the interpreter is killed."""
    cpu: int = 60
    """CPU seconds of a session."""
    memory: int = 512 * 2**20
    """Bytes of address space beyond those of the preloaded libraries."""
    output: int = 4000
    """Most characters of printed output and of the value; the middle is cut."""
    disk: int = 16 * 2**20
    """Bytes of all files."""
    files: int = 256
    """Number of files and folders."""
    code: int = 100_000
    """Characters of one cell."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        above(0, self, "wall", "grace")
        at_least(1, self, "cpu", "memory", "output", "disk", "files", "code")


class Result(NamedTuple):
    """The result of one cell."""

    status: Status
    stdout: str = ""
    """Standard output and standard error."""
    value: str = ""
    """``repr`` of its last expression, as in a notebook."""
    error: str = ""
    """The line and the exception, or what ended the interpreter."""
    wall: float = 0.0
    """Wall-clock seconds, measured by the client."""
    cpu: float = 0.0
    """CPU seconds, reported by the interpreter; untrusted."""
    lost: bool = False
    """The interpreter and its variables are lost; the next cell gets a new one."""
