"""Turns a process into the interpreter of a session: libraries, confinement, cells."""

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
    """Import the preloaded libraries; missing ones are skipped."""
    for name in (*_COMMON.split(), *preload):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "numpy" in sys.modules:
        # Done before confinement, since it loads a shared library.
        numpy: Any = sys.modules["numpy"]
        numpy.random.seed(0)
    gc.collect()
    gc.freeze()


def interpret(
    link: int, own: str, order: dict[str, Any], layers: list[str], missing: dict[str, str]
) -> None:
    """Apply all layers, then run cells until the client disconnects.

    Args:
        link: Descriptor of the socket to the client.
        own: The writable folder where no disk in memory can be mounted.
        order: The settings of the client; see ``agentgym.sandbox.server``.
        layers: The layers already applied.
        missing: Layers that could not be applied, and why.
    """

    def apply(name: str, layer: Callable[[], None]) -> None:
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
    apply("disk", lambda: confine.mount_empty(folder, order["disk"], order["files"]))
    if "disk" in missing:
        folder = own
        os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    random.seed(0)
    with contextlib.suppress(OSError):
        confine.drop_capabilities()
    apply("rlimits", lambda: confine.limit(**order["rlimits"]))
    apply("landlock", lambda: confine.landlock(order["readable"], folder))
    apply("seccomp", confine.seccomp)
    cells.write_frame(3, {"layers": layers, "missing": missing})
    cells.serve(3, order["output"])
