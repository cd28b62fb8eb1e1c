"""Contracts as functions that anyone can run against their own work."""

from agentgym.testing.worlds import check_world

__all__ = ["check_world"]
