"""What a result was made with: versions of packages, and the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("agentic-gym", "torch", "transformers", "tokenizers", "peft", "numpy", "gymnasium"),
    *("vllm", "textworld", "alfworld", "scienceworld"),
)
"""Packages that can change a result."""


def versions() -> dict[str, str]:
    """Installed packages of ``PACKAGES``, Python, system and processors.

    Examples:
        >>> sorted(versions())[-1]
        'transformers'
    """
    found = {"python": platform.python_version(), "system": platform.platform()}
    found["processors"] = f"{os.cpu_count()} x {platform.machine()}"
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
