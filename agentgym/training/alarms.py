"""Warnings about a run that is going wrong: each is given once, and logged at every step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from agentgym.settings import AlarmSettings

ADVICE = {
    "entropy-collapse": "the policy hardly explores any more; an entropy term or a wider upper "
    "clip holds entropy up",
    "entropy-explosion": "the policy is coming apart; lower the learning rate or the weight of an "
    "entropy term",
    "same-episodes": "in nearly all groups every episode acts the same, so that nothing can be "
    "compared; raise the temperature or hold entropy up",
    "template": "the policy acts alike whatever the task; look at the episodes",
    "zero-gradient": "nothing is learned; see `group/tied`: easier or harder tasks are needed, or "
    "larger groups",
}
"""What each alarm means."""


class Watch(NamedTuple):
    """What alarms remember of the steps so far; plain numbers, so that a checkpoint holds them."""

    first: float = math.nan
    """Entropy at the first step that had any, in nats."""
    rows: tuple[tuple[str, int], ...] = ()
    """For how many steps in a row each alarm has held."""

    def after(self, metrics: Mapping[str, float], limits: AlarmSettings) -> Watch:
        """With one step more."""
        entropy = metrics.get("policy/entropy", math.nan)
        first = entropy if math.isnan(self.first) else self.first
        before = dict(self.rows)
        held = _holds(metrics, first, limits)
        rows = tuple((name, before.get(name, 0) + 1 if held[name] else 0) for name in ADVICE)
        return Watch(first, rows)

    def metrics(self) -> dict[str, float]:
        """For how many steps in a row each alarm has held."""
        return {f"alarm/{name}": float(count) for name, count in self.rows}

    def warnings(self, limits: AlarmSettings) -> tuple[str, ...]:
        """What is to be said after this step and no other of the same row of steps."""
        return tuple(
            f"{name}, {count} steps in a row: {ADVICE[name]}"
            for name, count in self.rows
            if count == limits.patience
        )


def _holds(metrics: Mapping[str, float], first: float, limits: AlarmSettings) -> dict[str, bool]:
    """Which alarms hold at a step; what was not measured raises none."""
    entropy = metrics.get("policy/entropy", math.nan)
    norms = [value for name, value in metrics.items() if name.endswith("/grad_norm")]
    return {
        "entropy-collapse": entropy < limits.entropy_collapse * first,
        "entropy-explosion": entropy > limits.entropy_explosion * first,
        "same-episodes": metrics.get("group/alike", 0.0) > limits.identical_groups,
        "template": metrics.get("group/information", 1.0) < limits.template_collapse,
        "zero-gradient": max(norms, default=0.0) == 0.0,
    }
