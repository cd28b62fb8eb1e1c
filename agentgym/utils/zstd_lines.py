"""Lines in a file that grows and is compressed: one Zstandard frame each (RFC 8878).

Every frame is followed by a skippable frame that holds its length. So a writer sees at the end of
the file whether the last line is whole, however long the file is, and any Zstandard tool reads
the lines.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from agentgym.errors import ConfigError, MissingExtra

SUFFIX = ".zst"
_MAGIC = b"\x28\xb5\x2f\xfd"
_TRAILER = struct.Struct("<IIQ")
"""Magic of a skippable frame, size of its content, and the content: the length of a frame."""
_SKIPPABLE = 0x184D2A5A


def is_compressed(path: Path) -> bool:
    """Whether the name of a file marks its lines as compressed."""
    return path.suffix == SUFFIX


def frame(line: bytes) -> bytes:
    """What is appended for one line, which ends with a newline."""
    data: bytes = library().compress(line)
    return data + _TRAILER.pack(_SKIPPABLE, 8, len(data))


def is_whole(file: BinaryIO) -> bool:
    """Whether a file is empty or ends with a frame and its length.

    If not, the last line was cut off, or another tool compressed the file.
    """
    size = file.seek(0, os.SEEK_END)
    if size < _TRAILER.size:
        return not size
    file.seek(size - _TRAILER.size)
    magic, content, length = _TRAILER.unpack(file.read(_TRAILER.size))
    start = size - _TRAILER.size - length
    if (magic, content) != (_SKIPPABLE, 8) or start < 0:
        return False
    file.seek(start)
    return file.read(len(_MAGIC)) == _MAGIC


def read_lines(path: Path) -> Iterator[bytes]:
    """Lines with their newlines; the last one may lack it, and one that was cut off is left out.

    Raises:
        ConfigError: The file is not Zstandard, or damaged.
    """
    zstd = library()
    count = 0
    try:
        with zstd.open(path, "rb") as file:
            for line in file:
                yield line
                count += 1
    except EOFError:
        return
    except zstd.ZstdError as problem:
        raise ConfigError(
            f"{path}, after line {count}: the compressed data is damaged ({problem})"
        ) from problem


def library() -> Any:
    """The module of the standard library from Python 3.14 on, before that its backport.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as problem:
        raise MissingExtra(
            "compressed episodes need Zstandard: pip install 'agentic-gym[zstd]'"
        ) from problem
    return zstd
