"""Importing AgentDojo without the clients of language models that its wheel asks for."""

from __future__ import annotations

import importlib
import sys
import threading
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from agentgym.errors import MissingExtra

ENV = "agentgym/AgentDojo-v0"
VERSION = "v1.2.2"
"""Of the suites, the newest in the package."""
_NEEDS = ("agentdojo", "deepdiff", "docstring_parser", "email_validator", "pydantic")
_PIPELINE = "agentdojo.agent_pipeline"
_WANTED = (
    "agentdojo.task_suite",
    "agentdojo.attacks",
    "agentdojo.functions_runtime",
    f"{_PIPELINE}.base_pipeline_element",
    f"{_PIPELINE}.ground_truth_pipeline",
    f"{_PIPELINE}.tool_execution",
)


def require() -> None:
    """Check that the package is there.

    Raises:
        MissingExtra: It is not.
    """
    if not all(map(find_spec, _NEEDS)):
        raise MissingExtra(
            f"{ENV} needs suites and tools of AgentDojo, and few of the packages that its wheel "
            f'asks for: pip install "agentic-gym[agentdojo]" && pip install --no-deps '
            f'"agentdojo==0.1.35"'
        )


_lock = threading.Lock()


def load() -> dict[str, ModuleType]:
    """The modules that are used, by the last part of their names."""
    with _lock:  # What is put in the place of a parent must not be seen by another thread.
        return _loaded()


@cache
def _loaded() -> dict[str, ModuleType]:
    """The modules, once in a process.

    ``agentdojo.agent_pipeline`` imports the clients of four vendors where it is loaded as a
    whole. Where it is not loaded yet, its parts are loaded one by one under an empty parent,
    which is taken away again so that others can import the real one.
    """
    if _PIPELINE in sys.modules:
        return _import()
    spec = find_spec("agentdojo")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "agent_pipeline"
    _stand_in(_PIPELINE, __path__=[str(folder)])
    _stand_in(f"{_PIPELINE}.llms", __path__=[])
    # The one name that the execution of tools takes from a client.
    _stand_in(f"{_PIPELINE}.llms.google_llm", EMPTY_FUNCTION_NAME="<empty-function>")
    try:
        return _import()
    finally:
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{_PIPELINE}.")]:
            del sys.modules[name]
        vars(sys.modules["agentdojo"]).pop("agent_pipeline", None)


def _import() -> dict[str, ModuleType]:
    found = {name.rpartition(".")[2]: importlib.import_module(name) for name in _WANTED}
    for name in ("email_client", "cloud_drive_client"):
        module = importlib.import_module(f"agentdojo.default_suites.v1.tools.{name}")
        # They stamp mails and files with the time of the machine, which results then show.
        vars(module)["datetime"] = SimpleNamespace(datetime=_Clock)
    return found


class _Clock:
    """The clock of the suites, which stands still."""

    @staticmethod
    def now() -> datetime:
        """Noon of the day that the suites' calendar names."""
        return datetime(2024, 5, 15, 12)


def _stand_in(name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
