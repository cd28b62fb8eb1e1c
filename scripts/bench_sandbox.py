"""What the sandbox costs: new and running interpreters, beside plain Python.

Both real time and processor time of all processes that take part, since on a busy machine most of
the real time is waiting for a turn. A ratio of two numbers of one run says more than either.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from agentgym.errors import Unconfined
from agentgym.sandbox import Sandbox
from agentgym.sandbox.limits import REQUIRED

CODE = "import sympy\nprint(sympy.factorint(360))"


def spent() -> float:
    """Processor seconds of this process, its children, and theirs, ended ones included."""
    mine = os.times()
    total = sum(mine[:4])
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        running = children.read().split()
    for child in running:
        with open(f"/proc/{child}/stat") as stat:
            ticks = stat.read().rpartition(")")[2].split()[11:15]
        total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def measure(name: str, call: Callable[[], object], seconds: float = 5.0) -> None:
    """Print calls per second, and processor milliseconds of a call."""
    call()
    start, before, count = time.perf_counter(), spent(), 0
    while time.perf_counter() - start < seconds:
        call()
        count += 1
    took = time.perf_counter() - start
    time.sleep(0.5)  # The last interpreters end a little later.
    print(f"{name:34}{count / took:9.1f} /s {1000 * (spent() - before) / count:9.2f} ms processor")


def main() -> None:
    """Measure twice and print."""
    sandbox = Sandbox()
    session = sandbox.session()
    plain = [sys.executable, "-c", "print(1 + 1)"]
    bare = [sys.executable, "-I", "-S", "-c", "print(1 + 1)"]
    loaded = [sys.executable, "-c", CODE]
    for _ in range(2):
        measure("a cell in a running interpreter", lambda: session.run("print(1 + 1)"))
        measure("a program in a new interpreter", lambda: sandbox.run("print(1 + 1)"))
        measure("the same, with sympy", lambda: sandbox.run(CODE))
        for name, command in [("bare", bare), ("plain", plain), ("with sympy", loaded)]:
            measure(
                f"python -c, unconfined, {name}",
                lambda command=command: subprocess.run(command, capture_output=True, check=True),
            )
    session.close()
    for backend in REQUIRED:
        try:
            apart = Sandbox(backend=backend)
            measure(f"a program behind {backend}", lambda apart=apart: apart.run("print(1 + 1)"))
        except Unconfined as lacking:
            print(lacking)


if __name__ == "__main__":
    main()
