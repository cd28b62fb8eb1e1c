"""The folder in which environments keep files that take long to build."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from agentgym.errors import CacheError


def cache_root() -> Path:
    """The folder named by ``AGENTGYM_CACHE``, by default ``~/.cache/agentgym``."""
    return Path(os.environ.get("AGENTGYM_CACHE") or "~/.cache/agentgym").expanduser().absolute()


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder under a temporary name, then rename it in one step.

    If another process has created the folder meanwhile, that one is kept.

    Raises:
        CacheError: It cannot be written; nothing is left behind.
    """
    try:
        _write_and_rename(folder, write)
    except OSError as problem:
        raise CacheError(
            f"cannot write {folder}: {problem.strerror or problem}; make room there, or set "
            f"AGENTGYM_CACHE to another folder"
        ) from problem


def _write_and_rename(folder: Path, write: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as made:
        inner = Path(made) / "made"
        inner.mkdir()
        write(inner)
        try:
            inner.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
