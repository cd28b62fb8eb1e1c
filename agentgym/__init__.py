"""Reinforcement learning for language-model agents in long-horizon text environments.

The functions here do the whole job, from scripts and notebooks: ``make`` an environment, list a
``panel`` of its tasks, ``train``, ``evaluate``, ``compare``, ``load_recipe``. Everything else an
author of an environment needs is here too. Importing this loads neither torch nor the packages of
any environment; the training stack is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentgym.env.base import AnyText, Opening, Outcome, TextEnv
from agentgym.env.panel import Panel
from agentgym.env.registry import environments, register_environments
from agentgym.errors import AgentGymError
from agentgym.types import Completion, Sampling, Stop, Task, Trajectory, Turn

if TYPE_CHECKING:
    from agentgym.evaluation.compare import Comparison
    from agentgym.evaluation.report import Report
    from agentgym.experiment.api import compare, evaluate, load_recipe, make, panel, score, train
    from agentgym.experiment.result import TrainResult
    from agentgym.settings import (
        AgentSettings,
        AlarmSettings,
        ClusterSettings,
        CurriculumSettings,
        EndpointSettings,
        Experiment,
        ImitationSettings,
        LoraSettings,
        OptimizerSettings,
        PanelSettings,
        ProgramSettings,
        RolloutSettings,
        ScheduleSettings,
        ScoringSettings,
        ScratchSettings,
    )

_LAZY = {
    "AgentSettings": "agentgym.settings",
    "AlarmSettings": "agentgym.settings",
    "ClusterSettings": "agentgym.settings",
    "CurriculumSettings": "agentgym.settings",
    "Comparison": "agentgym.evaluation.compare",
    "EndpointSettings": "agentgym.settings",
    "Experiment": "agentgym.settings",
    "ImitationSettings": "agentgym.settings",
    "LoraSettings": "agentgym.settings",
    "OptimizerSettings": "agentgym.settings",
    "PanelSettings": "agentgym.settings",
    "ProgramSettings": "agentgym.settings",
    "Report": "agentgym.evaluation.report",
    "RolloutSettings": "agentgym.settings",
    "ScheduleSettings": "agentgym.settings",
    "ScoringSettings": "agentgym.settings",
    "ScratchSettings": "agentgym.settings",
    "TrainResult": "agentgym.experiment.result",
    "compare": "agentgym.experiment.api",
    "evaluate": "agentgym.experiment.api",
    "load_recipe": "agentgym.experiment.api",
    "make": "agentgym.experiment.api",
    "panel": "agentgym.experiment.api",
    "score": "agentgym.experiment.api",
    "train": "agentgym.experiment.api",
}
"""Names that are imported on first use, with their modules."""

__all__ = [
    "AgentGymError",
    "AgentSettings",
    "AlarmSettings",
    "AnyText",
    "ClusterSettings",
    "Comparison",
    "Completion",
    "CurriculumSettings",
    "EndpointSettings",
    "Experiment",
    "ImitationSettings",
    "LoraSettings",
    "Opening",
    "OptimizerSettings",
    "Outcome",
    "Panel",
    "PanelSettings",
    "ProgramSettings",
    "Report",
    "RolloutSettings",
    "Sampling",
    "ScheduleSettings",
    "ScoringSettings",
    "ScratchSettings",
    "Stop",
    "Task",
    "TextEnv",
    "TrainResult",
    "Trajectory",
    "Turn",
    "__version__",
    "compare",
    "environments",
    "evaluate",
    "load_recipe",
    "make",
    "panel",
    "register_environments",
    "score",
    "train",
]

__version__: str


def __getattr__(name: str) -> Any:
    """Import what ``_LAZY`` lists, on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("agentic-gym")
    if name not in _LAZY:
        raise AttributeError(f"module 'agentgym' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return found


register_environments()
