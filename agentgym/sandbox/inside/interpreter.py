"""From a process to the interpreter of a session: libraries first, then no rights, then cells."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any

from . import cells, confine

_COMMON = (
    "bisect cmath collections copy csv dataclasses datetime decimal enum fractions functools "
    "heapq itertools json math operator pathlib random re statistics string textwrap time typing"
)


def warm(preload: Iterable[str]) -> None:
    """Import what interpreters have at hand; libraries that are not installed are left out."""
    for name in (*_COMMON.split(), *preload):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "numpy" in sys.modules:
        # Here, since it loads a library; interpreters start from this state.
        numpy: Any = sys.modules["numpy"]
        numpy.random.seed(0)
    gc.collect()
    gc.freeze()


def interpret(
    link: int, own: str, order: dict[str, Any], layers: list[str], missing: dict[str, str]
) -> None:
    """Give up all rights, then run cells until the client goes.

    Args:
        link: Descriptor of the socket to the client.
        own: The folder to write in where no disk in memory can be mounted.
        order: What the client wants; see ``agentgym.sandbox.server``.
        layers: What confines this process already.
        missing: Layers that could not be put on, and why.
    """

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
        os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    random.seed(0)
    with contextlib.suppress(OSError):
        confine.drop_capabilities()
    put("rlimits", lambda: confine.limit(**order["rlimits"]))
    put("landlock", lambda: confine.landlock(order["readable"], folder))
    put("seccomp", confine.seccomp)
    cells.write_frame(3, {"layers": layers, "missing": missing})
    cells.serve(3, order["output"])
