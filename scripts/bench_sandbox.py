"""What the sandbox costs: calls per second of new and of running interpreters, and of plain Python.

Processor time would leave out what the fork server spends, so this is real time; a ratio of two
numbers of one run says more than either.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from agentgym.sandbox import Sandbox

CODE = "import sympy\nprint(sympy.factorint(360))"


def rate(call: Callable[[], object], seconds: float = 5.0) -> float:
    """Calls per second."""
    call()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    sandbox = Sandbox()
    session = sandbox.session()
    plain = [sys.executable, "-c", "print(1 + 1)"]
    for _ in range(2):
        rows = {
            "a cell in a running interpreter": rate(lambda: session.run("print(1 + 1)")),
            "a program in a new interpreter": rate(lambda: sandbox.run("print(1 + 1)")),
            "the same, with sympy": rate(lambda: sandbox.run(CODE)),
            "python -c, unconfined": rate(
                lambda: subprocess.run(plain, capture_output=True, check=True)
            ),
            "python -c with sympy, unconfined": rate(
                lambda: subprocess.run(
                    [sys.executable, "-c", CODE], capture_output=True, check=True
                )
            ),
        }
        for name, found in rows.items():
            print(f"{name:36}{found:10.1f} calls/s")
    session.close()


if __name__ == "__main__":
    main()
