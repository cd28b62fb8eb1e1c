"""What a program may use, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from agentgym.utils.bounds import above, at_least

LAYERS = ("namespaces", "disk", "rlimits", "landlock", "seccomp")
"""What confines an interpreter, outermost first.

``namespaces``: no network, other processes unseen, no rights of a superuser. ``disk``: an empty
folder in memory is all that can be written. ``rlimits``: memory, processor, files. ``landlock``:
no file beyond the libraries and that folder can be opened. ``seccomp``: only the system calls in
a list, none of which starts a process, opens a socket or sends a signal. A sixth, ``nobody``,
is put on where the client is root and the libraries are readable by everybody.
"""

Backend = Literal["fork-server", "bubblewrap", "gvisor"]
"""What sets an interpreter apart: our server that forks it, or a program around each one."""
REQUIRED: dict[Backend, tuple[str, ...]] = {
    "fork-server": LAYERS,
    "bubblewrap": LAYERS,
    # Its own kernel has no Landlock, and shows an interpreter the libraries and nothing else.
    "gvisor": ("namespaces", "disk", "rlimits", "seccomp"),
}
"""Layers without which a backend runs nothing, unless told otherwise."""


class Status(StrEnum):
    """How a program ended."""

    OK = "ok"
    ERROR = "error"
    """It raised."""
    TIMEOUT = "timeout"
    """It ran longer than ``SandboxLimits.wall``."""
    MEMORY = "memory"
    """It asked for more than ``SandboxLimits.memory``."""
    CRASHED = "crashed"
    """Its interpreter died: killed at the processor limit, or brought down by the program."""
    GARBLED = "garbled"
    """Its interpreter answered what no interpreter answers; it was ended."""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What a session may use."""

    wall: float = 5.0
    """Seconds for one cell."""
    grace: float = 1.0
    """Seconds more for a cell that does not heed the alarm; then the interpreter is killed."""
    cpu: int = 60
    """Seconds of processor for a session."""
    memory: int = 512 * 2**20
    """Bytes of address space beyond what the preloaded libraries take."""
    output: int = 4000
    """Characters kept of what a cell prints, and of its value; the middle is left out."""
    disk: int = 16 * 2**20
    """Bytes of all files."""
    files: int = 256
    """Number of files and folders."""
    code: int = 100_000
    """Characters of one cell."""

    def __post_init__(self) -> None:
        """Refuse what no program can keep to."""
        above(0, self, "wall", "grace")
        at_least(1, self, "cpu", "memory", "output", "disk", "files", "code")


class Result(NamedTuple):
    """What came of one cell."""

    status: Status
    stdout: str = ""
    """What it printed, errors included."""
    value: str = ""
    """``repr`` of its last expression, as a notebook shows it."""
    error: str = ""
    """The line and the exception, or what ended it."""
    wall: float = 0.0
    """Seconds, as the client measured them."""
    cpu: float = 0.0
    """Seconds of processor, as the interpreter says; not to be trusted."""
    lost: bool = False
    """The interpreter is gone, with its variables; the next cell gets a new one."""
