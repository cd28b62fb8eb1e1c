"""Where worlds keep what takes long to make."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """The folder that ``AGENTGYM_CACHE`` names, else ``~/.cache/agentgym``."""
    return Path(os.environ.get("AGENTGYM_CACHE") or "~/.cache/agentgym").expanduser().absolute()


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let a folder be written beside its place, then put it there in one step.

    One that another process has put there meanwhile stays.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
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
