"""Environments with one fault each, modelled on issues reported by users of similar libraries."""

from defects import agents, answers, state, tasks
from defects.worlds import DEFECTS, Corridor, Defect, Drawers

__all__ = ["DEFECTS", "Corridor", "Defect", "Drawers", "agents", "answers", "state", "tasks"]
