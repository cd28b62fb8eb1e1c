"""What an environment is, how it is registered and listed, and where it runs."""

from agentgym.env.base import (
    AnyText,
    Opening,
    Outcome,
    Progress,
    Promises,
    TextEnv,
    one_of,
    unknown_split,
    unknown_task,
)

__all__ = [
    "AnyText",
    "Opening",
    "Outcome",
    "Progress",
    "Promises",
    "TextEnv",
    "one_of",
    "unknown_split",
    "unknown_task",
]
