"""Every setting of a run: one tree of frozen dataclasses. The defaults are tested together.

Each class refuses values that no run can use when it is built, so a mistake is found before any
work starts.
"""

from agentgym.settings.checking import CheckSettings
from agentgym.settings.cluster import ClusterSettings
from agentgym.settings.curriculum import CurriculumSettings
from agentgym.settings.experiment import WORLD, EngineKind, Experiment
from agentgym.settings.learning import (
    SMALLEST_VOCABULARY,
    AlarmSettings,
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    Precision,
    ScheduleSettings,
    ScratchSettings,
)
from agentgym.settings.playing import (
    ActionFormatName,
    AgentSettings,
    EndpointSettings,
    PanelSettings,
    RolloutSettings,
    Value,
)
from agentgym.settings.programs import ProgramSettings
from agentgym.settings.scoring import ScoringSettings
from agentgym.settings.user import UserSettings

__all__ = [
    "SMALLEST_VOCABULARY",
    "WORLD",
    "ActionFormatName",
    "AgentSettings",
    "AlarmSettings",
    "CheckSettings",
    "ClusterSettings",
    "CurriculumSettings",
    "EndpointSettings",
    "EngineKind",
    "Experiment",
    "ImitationSettings",
    "LoraSettings",
    "OptimizerSettings",
    "PanelSettings",
    "Precision",
    "ProgramSettings",
    "RolloutSettings",
    "ScheduleSettings",
    "ScoringSettings",
    "ScratchSettings",
    "UserSettings",
    "Value",
]
