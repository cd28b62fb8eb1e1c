"""What installed packages add: algorithms and services, found through entry points."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from agentgym.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    pass


def service(name: str) -> Callable[..., Any] | None:
    """What makes the ASGI application of an installed service, if there is one of this name.

    Each entry point of the group ``agentgym.services`` names a function of keywords.
    """
    found = [entry for entry in entry_points(group="agentgym.services") if entry.name == name]
    return found[0].load() if found else None


def algorithms() -> dict[str, Any]:
    """Every installed algorithm's configuration class, by name, sorted."""
    found = {entry.name: entry for entry in entry_points(group="agentgym.algorithms")}
    return {name: found[name].load() for name in sorted(found)}


def algorithm(name: str) -> Any:
    """One algorithm's configuration class.

    Raises:
        ConfigError: No installed package declares it.
    """
    found = {entry.name: entry for entry in entry_points(group="agentgym.algorithms")}
    if name not in found:
        raise ConfigError(
            f"no algorithm {name!r}.{did_you_mean(name, found)} Installed: "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    return found[name].load()
