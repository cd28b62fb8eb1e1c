"""Where worlds keep what takes long to make."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """The folder that ``AGENTGYM_CACHE`` names, else ``~/.cache/agentgym``."""
    return Path(os.environ.get("AGENTGYM_CACHE") or "~/.cache/agentgym").expanduser().absolute()
