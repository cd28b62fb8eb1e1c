"""Contracts of environments and algorithms as functions, for tests of your own."""

from agentgym.settings import CheckSettings
from agentgym.testing.environments import check_environment

__all__ = ["CheckSettings", "check_algorithm", "check_environment"]


def __getattr__(name: str) -> object:
    """Load the contract of algorithms when asked for: authors of environments have no torch."""
    if name == "check_algorithm":
        from agentgym.testing.algorithms import check_algorithm

        return check_algorithm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
