"""JSON lines and files that survive being cut off.

A line counts once its newline is written. A reader skips an unfinished last line, and a writer
cuts it off before it appends, so a killed run is continued without repair by hand. Files named
``.zst`` are compressed; see ``zstd_lines``.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.utils import zstd_lines
from agentgym.utils.zstd_lines import frame, is_compressed, is_whole


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file in one step, so that a reader sees the old content or the new.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                # Without this, a power cut can leave the new name with no content behind it.
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add one line to a JSON-lines file, after cutting off an unfinished one.

    Raises:
        OSError: It cannot be written; the error names the file.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        (_append_frame if is_compressed(path) else _append_text)(path, line)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name a file in errors of the system: a full disk is met by a write, which knows no name."""
    try:
        yield
    except OSError as problem:
        if problem.errno is None:
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from problem


def _append_text(path: Path, line: str) -> None:
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()


def _append_frame(path: Path, line: str) -> None:
    with path.open("a+b") as file:
        whole = is_whole(file)
    if not whole:
        write_lines(path, [found.decode() for found in read_lines(path)])
    with path.open("ab") as file:
        file.write(frame(line.encode() + b"\n"))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Replace a JSON-lines file in one step, compressed if it is named ``.zst``."""
    encoded = (line.encode() + b"\n" for line in lines)
    write_atomic(path, b"".join(map(frame, encoded) if is_compressed(path) else encoded))


def read_lines(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, without their newlines.

    Raises:
        ConfigError: Compressed data is damaged.
    """
    if is_compressed(path):
        yield from (line[:-1] for line in zstd_lines.read_lines(path) if line.endswith(b"\n"))
    else:
        with path.open("rb") as file:
            yield from (line[:-1] for line in file if line.endswith(b"\n"))


def is_cut(path: Path) -> bool:
    """Whether the last line of a plain file is unfinished."""
    with path.open("rb") as file:
        if is_compressed(path) or not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file; an unfinished last line is passed over.

    Raises:
        ConfigError: Another line is damaged.
    """
    for number, line in enumerate(read_lines(path), start=1):
        try:
            yield parse_object(line.decode())
        except (ConfigError, UnicodeDecodeError) as problem:
            raise ConfigError(f"{path}, line {number}: {problem}") from problem


def dumps(value: Mapping[str, object]) -> str:
    """One line of strict JSON: ASCII only, NaN and infinity as null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def parse_object(line: str) -> dict[str, Any]:
    """A JSON object from its text.

    Raises:
        ConfigError: The text is something else.
    """
    try:
        found = json.loads(line)
    except ValueError as problem:
        raise ConfigError(f"not JSON: {problem}") from problem
    if not isinstance(found, dict):
        raise ConfigError(f"got a JSON {type(found).__name__}, expected an object")
    return found
