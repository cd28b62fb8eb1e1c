"""The place in foreign code where an exception was raised."""

from __future__ import annotations

import os
import sysconfig
import traceback
from importlib.util import find_spec
from pathlib import Path

_STANDARD, _INSTALLED = (sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib"))


def _folder(package: str) -> str:
    found = find_spec(package)
    assert found is not None and found.origin is not None
    return f"{Path(found.origin).parent}{os.sep}"


_OURS = tuple(map(_folder, ("agentgym", "gymnasium")))


def place_of(problem: BaseException) -> str:
    """File and line in the environment's code where an exception was raised; else empty."""
    for each in reversed(traceback.extract_tb(problem.__traceback__)):
        file = each.filename
        standard = file.startswith((_STANDARD, "<")) and not file.startswith(_INSTALLED)
        if not standard and not file.startswith(_OURS):
            return f"{Path(file).name}, line {each.lineno}"
    return ""
