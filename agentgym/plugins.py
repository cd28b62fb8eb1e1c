"""What installed packages add: algorithms and services, found through entry points."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from agentgym.errors import ConfigError, MissingExtra, did_you_mean

if TYPE_CHECKING:
    from agentgym.algorithm import AlgorithmSettings

EXTRAS = {
    "docstring_parser": "tools",
    "httpx": "http",
    "jaxtyping": "train",
    "matplotlib": "train",
    "mcp": "mcp",
    "peft": "train",
    "pyarrow": "parquet",
    "pydantic": "tools",
    "safetensors": "train",
    "starlette": "serve",
    "tokenizers": "train",
    "torch": "train",
    "transformers": "train",
    "uvicorn": "serve",
    "websockets": "openenv",
}
"""Module to the extra of this package that brings it."""


def missing_extra(problem: ImportError) -> MissingExtra | None:
    """The error that names the extra to install; None when no extra brings the module."""
    module = (problem.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return MissingExtra(
        f'this needs the package {module}: pip install "agentic-gym[{EXTRAS[module]}]"'
    )


def service(name: str) -> Callable[..., Any] | None:
    """The factory of an installed service's ASGI application; None if there is none of this name.

    Each entry point of the group ``agentgym.services`` names a function of keywords.

    Raises:
        ConfigError: Its package cannot be imported.
    """
    found = [entry for entry in entry_points(group="agentgym.services") if entry.name == name]
    return _load(found[0]) if found else None


def algorithms() -> dict[str, type[AlgorithmSettings]]:
    """Every installed algorithm's configuration class, by name, sorted.

    One that cannot be imported is skipped with a warning.
    """
    found = {entry.name: entry for entry in entry_points(group="agentgym.algorithms")}
    loaded: dict[str, type[AlgorithmSettings]] = {}
    for name in sorted(found):
        try:
            loaded[name] = _load(found[name])
        except ConfigError as problem:
            warnings.warn(f"{problem}; it is skipped", stacklevel=2)
    return loaded


def algorithm(name: str) -> type[AlgorithmSettings]:
    """One algorithm's configuration class.

    Raises:
        ConfigError: No installed package declares it, or its package cannot be imported.
    """
    found = {entry.name: entry for entry in entry_points(group="agentgym.algorithms")}
    if name not in found:
        raise ConfigError(
            f"no algorithm {name!r}.{did_you_mean(name, found)} Installed: "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    kind: type[AlgorithmSettings] = _load(found[name])
    return kind


def _load(entry: EntryPoint) -> Any:
    package = entry.dist.name if entry.dist else "an installed package"
    try:
        return entry.load()
    except MissingExtra:
        raise
    except ModuleNotFoundError as problem:
        if missing := missing_extra(problem):
            raise missing from problem
        raise _broken(entry, package, problem) from problem
    except (Exception, SystemExit) as problem:
        raise _broken(entry, package, problem) from problem


def _broken(entry: EntryPoint, package: str, problem: BaseException) -> ConfigError:
    return ConfigError(
        f"{entry.name!r} of package {package!r} cannot be loaded: {entry.value} failed with "
        f"{type(problem).__name__}: {problem}"
    )
