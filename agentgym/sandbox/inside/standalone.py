"""An interpreter in its own process, already isolated by bubblewrap or gVisor."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from . import confine
from .interpreter import interpret, warm


def main() -> None:
    """Run the cells of one session; the order is an argument, the link is standard input."""
    order = json.loads(sys.argv[1])
    sys.path += order["packages"]
    link = os.dup(0)
    warm(order["preload"])
    if os.getuid() != 0:
        # Without root, a disk can be mounted only in a new namespace.
        with contextlib.suppress(OSError):
            confine.own_mounts()
    nobody = order["nobody"] and os.getuid() == confine.NOBODY
    interpret(link, order["folder"], order, ["nobody"] * nobody + ["namespaces"], {})
