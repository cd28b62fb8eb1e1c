"""Warnings about a run that goes wrong: each is logged at every step and shown once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from agentgym.settings import AlarmSettings

ADVICE = {
    "entropy-collapse": "the policy hardly explores any more; an entropy term or a wider upper "
    "clip holds entropy up",
    "entropy-explosion": "the policy is degrading; lower the learning rate or the weight of an "
    "entropy term",
    "same-episodes": "in nearly all groups all episodes act the same, so that there is nothing to "
    "compare; raise the temperature or hold entropy up",
    "never-acts": "hardly any turn holds an action that the environment could read, so that all "
    "episodes are the same; show the model how to act with `--imitation.pretrained` or examples, "
    "and check `episode/parsed` and `episode/cut`",
    "cut-completions": "most turns end at `--rollout.max-completion-tokens`, before the action; "
    "raise it",
    "template": "the policy acts alike whatever the task; look at the episodes",
    "inert-term": "a term of the loss has a much smaller gradient than the surrogate and "
    "hardly acts; see `update/norm/`: raise its weight, or leave it out",
    "zero-gradient": "nothing is learned; see `group/tied`: easier or harder tasks are needed, or "
    "larger groups",
}
"""What each alarm means."""
PARSED = 0.1
"""Share of parsed turns below which a policy counts as one that never acts."""


class AlarmState(NamedTuple):
    """What the alarms remember of earlier steps; plain numbers, so that a checkpoint holds them."""

    first_entropy: float = math.nan
    """Entropy at the first step that measured it, in nats."""
    streaks: tuple[tuple[str, int], ...] = ()
    """For how many consecutive steps each alarm has been active."""

    def updated(self, metrics: Mapping[str, float], limits: AlarmSettings) -> AlarmState:
        """The state after one more step."""
        entropy = metrics.get("policy/entropy", math.nan)
        first = entropy if math.isnan(self.first_entropy) else self.first_entropy
        before = dict(self.streaks)
        active = _active(metrics, first, limits)
        streaks = ((name, before.get(name, 0) + 1 if active[name] else 0) for name in ADVICE)
        return AlarmState(first, tuple(streaks))

    def metrics(self) -> dict[str, float]:
        """For how many consecutive steps each alarm has been active."""
        return {f"alarm/{name}": float(count) for name, count in self.streaks}

    def warnings(self, limits: AlarmSettings) -> tuple[str, ...]:
        """Warnings due after this step: alarms that have just been active for long enough."""
        return tuple(
            f"{name}, {count} steps in a row: {ADVICE[name]}"
            for name, count in self.streaks
            if count == limits.patience
        )


def _active(metrics: Mapping[str, float], first: float, limits: AlarmSettings) -> dict[str, bool]:
    """Which alarms are active at a step; a metric that was not measured activates none."""
    entropy = metrics.get("policy/entropy", math.nan)
    norms = [value for name, value in metrics.items() if name.endswith("/grad_norm")]
    cut = metrics.get("episode/cut", 0.0) > limits.cut_completions
    # A policy that never acts plays the same episode every time, at any temperature.
    mute = not cut and metrics.get("episode/parsed", 1.0) < PARSED
    identical = metrics.get("group/identical", 0.0) > limits.identical_groups
    return {
        "entropy-collapse": entropy < limits.entropy_collapse * first,
        "entropy-explosion": entropy > limits.entropy_explosion * first,
        "same-episodes": identical and not mute and not cut,
        "never-acts": mute,
        "cut-completions": cut,
        "template": metrics.get("group/task_information", 1.0) < limits.template_collapse,
        "inert-term": _inert(metrics, limits.inert_term),
        "zero-gradient": max(norms, default=0.0) == 0.0,
    }


def _inert(metrics: Mapping[str, float], least: float) -> bool:
    """Whether a term has less than a part ``least`` of the gradient norm of its surrogate.

    The critic's error is left out: it moves other weights.
    """
    for name, norm in metrics.items():
        update, found, term = name.rpartition("/norm/")
        surrogate = metrics.get(f"{update}/norm/surrogate", 0.0)
        if found and term not in ("surrogate", "value") and norm < least * surrogate:
            return True
    return False
