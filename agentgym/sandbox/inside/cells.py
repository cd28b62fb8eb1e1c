"""The interpreter of one session: runs cells of Python in one namespace and reports the results."""

from __future__ import annotations

import ast
import json
import os
import signal
import struct
import sys
import time
from types import ModuleType
from typing import Any

NAME = "<cell>"


class Captured:
    """A text stream that keeps the beginning and the end of its input."""

    encoding = "utf-8"

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head, self._tail, self._left_out = "", "", 0

    def write(self, text: str) -> int:
        """Keep what fits."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        room = self._half - len(self._head)
        self._head += text[:room] if room > 0 else ""
        rest = self._tail + text[max(0, room) :]
        # Trimmed occasionally: trimming at every write would be quadratic in the number of writes.
        if len(rest) > 2 * self._half:
            self._left_out += len(rest) - self._half
            rest = rest[-self._half :]
        self._tail = rest
        return len(text)

    def flush(self) -> None:
        """Does nothing: there is no buffer."""

    def isatty(self) -> bool:
        """Always false."""
        return False

    def text(self) -> str:
        """The kept text, with a note of the characters left out."""
        extra = max(0, len(self._tail) - self._half)
        left_out = self._left_out + extra
        note = f"\n[... {left_out} characters left out ...]\n" if left_out else ""
        return self._head + note + self._tail[extra:]


def read_frame(fd: int) -> dict[str, Any] | None:
    """The next request; None at the end."""
    header = _read(fd, 4)
    if len(header) < 4:
        return None
    found = json.loads(_read(fd, struct.unpack("!I", header)[0]))
    return dict(found)


def write_frame(fd: int, value: dict[str, Any]) -> None:
    """Send a reply; ASCII only, so that lone surrogates survive as escapes."""
    data = json.dumps(value).encode()
    data = struct.pack("!I", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def _read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            break
        data += more
    return data


def serve(link: int, output: int) -> None:
    """Answer requests until the other end closes.

    A request is ``{"number", "code", "wall"}``; a reply repeats the number.
    """
    # A new `__main__` module, so that pickle finds what a cell defines.
    main = sys.modules["__main__"] = ModuleType("__main__")
    namespace = main.__dict__
    signal.signal(signal.SIGALRM, _alarm)
    while (request := read_frame(link)) is not None:
        reply = run(request["code"], namespace, wall=request["wall"], output=output)
        write_frame(link, {"number": request["number"], **reply})


def run(code: str, namespace: dict[str, Any], *, wall: float, output: int) -> dict[str, Any]:
    """Run one cell.

    Args:
        code: Source.
        namespace: Its variables, changed in place.
        wall: Seconds until an alarm interrupts it.
        output: Most characters of printed output and of the value.
    """
    out = Captured(output)
    status, value, error = "ok", "", ""
    start = time.process_time()
    sys.stdout = sys.stderr = out
    try:
        signal.setitimer(signal.ITIMER_REAL, wall)
        try:
            value = _evaluate(code, namespace, output)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as problem:
        status = "error"
        if isinstance(problem, _Alarm):
            status, error = "timeout", f"interrupted after {wall:g} s"
        else:
            status = "memory" if isinstance(problem, MemoryError) else "error"
            error = _last_line(problem, output)
    finally:
        sys.stdout = sys.stderr = sys.__stdout__
    cpu = time.process_time() - start
    return {"status": status, "stdout": out.text(), "value": value, "error": error, "cpu": cpu}


class _Alarm(BaseException):
    """Timeout; ``except Exception`` in a cell does not catch it."""


def _alarm(number: int, frame: object) -> None:
    raise _Alarm


def _evaluate(code: str, namespace: dict[str, Any], output: int) -> str:
    """Execute a cell; returns ``repr`` of its last expression unless None."""
    tree = ast.parse(code, NAME)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, NAME, "exec"), namespace)
        return ""
    body = ast.Module(tree.body[:-1], [])
    exec(compile(body, NAME, "exec"), namespace)
    found = eval(compile(ast.Expression(last.value), NAME, "eval"), namespace)
    if found is None:
        return ""
    kept = Captured(output)
    kept.write(repr(found))
    return kept.text()


def _last_line(problem: BaseException, output: int) -> str:
    """The line of the cell that failed, and the exception."""
    line = problem.lineno if isinstance(problem, SyntaxError) else None
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    words = problem.msg if isinstance(problem, SyntaxError) else _text(problem)
    kept = Captured(output)
    kept.write(f"line {line}: " if line is not None else "")
    kept.write(type(problem).__name__ + (f": {words}" if words else ""))
    return kept.text()


def _text(problem: BaseException) -> str:
    """The text of an exception; a cell may define one that raises in ``__str__``."""
    try:
        return str(problem)
    except Exception:
        return "(its text raised another exception)"
