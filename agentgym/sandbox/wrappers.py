"""Commands that run an interpreter in its own process, inside bubblewrap or gVisor.

Both expose only the libraries, an empty folder in memory and ``/proc`` of their own processes.
Inside, the interpreter applies the same layers as with the fork server. gVisor's kernel has no
Landlock and no limit on the number of files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from hashlib import blake2b
from pathlib import Path

from agentgym.errors import Unconfined
from agentgym.sandbox.limits import Backend
from agentgym.utils.jsonl import write_atomic

ENVIRONMENT = {
    # Sets of strings need one order in every interpreter.
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""The whole environment of an interpreter and of the server that forks it."""
INSIDE = Path(__file__).parent / "inside"
"""The code of an interpreter."""
BOX = "/box"
"""The writable folder, as an interpreter sees it."""
_SHOWN = "/agentgym/inside"
"""The path of its code, as an interpreter sees it."""
_START = (
    f"import sys; sys.path.insert(0, {str(Path(_SHOWN).parent)!r}); import inside.standalone; "
    f"del sys.path[0]; inside.standalone.main()"
)
_PROGRAMS = {"bubblewrap": "bwrap", "gvisor": "runsc"}
_GVISOR = ("--rootless", "--network=none", "--ignore-cgroups")
_TRIALS = {
    "bubblewrap": ("--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc"),
    "gvisor": (*_GVISOR, "do"),
}

_TRIAL = 60.0
"""Seconds to start an empty program."""


@cache
def program(backend: Backend) -> str:
    """The program of a backend, after a trial run on this machine.

    Raises:
        Unconfined: It is not installed, or the machine does not permit it.
    """
    name = _PROGRAMS[backend]
    found = shutil.which(name)
    if found is None:
        raise Unconfined(
            f"the backend {backend} needs the program {name}, which is not installed: on Debian, "
            f"apt-get install {'bubblewrap' if name == 'bwrap' else name}"
        )
    trial = [found, *_TRIALS[backend], shutil.which("true") or "/bin/true"]
    try:
        subprocess.run(
            trial, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL, check=True
        )
    except (OSError, subprocess.SubprocessError) as problem:
        output = getattr(problem, "stderr", None) or str(problem).encode()
        words = output.decode(errors="replace").strip().rpartition("\n")[2]
        raise Unconfined(
            f"the backend {backend} does not work on this machine: {words[:300]}"
        ) from None
    return found


def bubblewrap(readable: tuple[str, ...], disk: int, order: str) -> list[str]:
    """The command that runs one interpreter."""
    shown = [word for path in (*readable, _python()) for word in ("--ro-bind-try", path, path)]
    return [
        program("bubblewrap"),
        *("--unshare-all", "--new-session", "--die-with-parent", "--as-pid-1"),
        *shown,
        *("--ro-bind", str(INSIDE), _SHOWN, "--dev-bind", os.devnull, os.devnull),
        *("--proc", "/proc", "--size", str(disk), "--tmpfs", BOX, "--chdir", BOX),
        *_interpreter(order),
    ]


def gvisor(readable: tuple[str, ...], folder: Path, order: str) -> list[str]:
    """The command that runs one interpreter, from a bundle of the Open Container Initiative.

    Args:
        readable: Folders of libraries.
        folder: For the bundle, shared by interpreters of one order, and gVisor's state.
        order: For the interpreter.
    """
    bundle = folder / blake2b(order.encode(), digest_size=8).hexdigest()
    if not bundle.exists():
        (bundle / "root").mkdir(parents=True)
        write_atomic(bundle / "config.json", json.dumps(_bundle(readable, order)))
    return [
        program("gvisor"),
        *("--root", str(folder / "state"), *_GVISOR, "run", "--bundle", str(bundle)),
        f"box-{os.urandom(8).hex()}",
    ]


def _bundle(readable: tuple[str, ...], order: str) -> dict[str, object]:
    shown = {path: path for path in (*readable, _python()) if os.path.exists(path)}
    mounts = [
        {"destination": inside, "source": path, "type": "bind", "options": ["ro", "rbind"]}
        for inside, path in {**shown, _SHOWN: str(INSIDE)}.items()
    ]
    # Needed to mount the disk; the interpreter drops it.
    rights = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.0.0",
        "root": {"path": "root", "readonly": True},
        "process": {
            "args": _interpreter(order),
            "cwd": BOX,
            "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "user": {"uid": 0, "gid": 0},
            "capabilities": rights,
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "source": "proc", "type": "proc"},
            {"destination": BOX, "source": "tmpfs", "type": "tmpfs"},
            # gVisor would add a writable one.
            {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs", "options": ["ro"]},
            *mounts,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]
        },
    }


def _python() -> str:
    return os.path.realpath(sys.executable)


def _interpreter(order: str) -> list[str]:
    return [_python(), "-s", "-S", "-P", "-c", _START, order]
