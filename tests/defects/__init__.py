"""Worlds with one fault each, modelled on what users of this field's libraries report."""

from defects import agents, answers, state, tasks
from defects.worlds import DEFECTS, Corridor, Defect, Drawers

__all__ = ["DEFECTS", "Corridor", "Defect", "Drawers", "agents", "answers", "state", "tasks"]
