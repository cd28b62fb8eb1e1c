"""Reinforcement learning for language-model agents in long-horizon text worlds.

Importing this needs neither torch nor any world's package: it is all that an author of a world
uses. Training lives in ``agentgym.algorithm``, ``agentgym.credit``, ``agentgym.losses`` and
``agentgym.training``.
"""

from agentgym.env.base import AnyText, Opening, Outcome, TextEnv
from agentgym.env.panel import Panel, panel
from agentgym.env.registry import environments, make, register_environments
from agentgym.errors import AgentGymError
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn

__all__ = [
    "AgentGymError",
    "AnyText",
    "Completion",
    "Opening",
    "Outcome",
    "Panel",
    "Sampling",
    "Stop",
    "Task",
    "TextEnv",
    "Trajectory",
    "Turn",
    "environments",
    "make",
    "panel",
    "register_environments",
]

register_environments()
