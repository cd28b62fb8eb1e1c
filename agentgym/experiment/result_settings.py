"""The settings on which the result of an evaluation depends: two that differ do not compare."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from agentgym.experiment.sources import shows_admissible
from agentgym.settings import ActionFormatName, Experiment, UserSettings

_PROGRAM = "agents", "untrained", "reward", "max_calls"


def settings_of_result(
    experiment: Experiment, *, action_format: ActionFormatName, temperature: float, engine: str
) -> dict[str, Any]:
    """By name; most are named only where they differ from their defaults.

    Args:
        experiment: The settings.
        action_format: The one chosen.
        temperature: Of the evaluation.
        engine: Kind of the engine.
    """
    rollout, agent = experiment.rollout, experiment.agent
    return {
        "seed": experiment.seed,
        "max_turns": rollout.max_turns,
        "max_context_tokens": rollout.max_context_tokens,
        "max_seconds": rollout.max_seconds,
        "max_completion_tokens": rollout.max_completion_tokens,
        "temperature": temperature,
        "action_format": action_format,
        "window": agent.window,
        "show_admissible": shows_admissible(agent),
        **_changed(agent, "prompt", "examples", "history", "system_prompt"),
        **_changed(agent, "tool_notation", "chat_template", "template_args"),
        **_changed(rollout, "max_thought_tokens"),
        **_program(experiment),
        **({} if engine == "local" else {"engine": engine}),
        **{f"env.{name}": value for name, value in experiment.env_args.items()},
        **({"tools": " ".join(experiment.tools)} if experiment.tools else {}),
        **_user(experiment.user),
    }


def _program(experiment: Experiment) -> dict[str, Any]:
    """Of an agent program."""
    program = experiment.agent_program
    if program is None:
        return {}
    shown = {
        f"program.{name}": " ".join(value) if isinstance(value, tuple) else value
        for name, value in _changed(experiment.program, *_PROGRAM).items()
    }
    return {"agent_program": program, **shown}


def _user(user: UserSettings) -> dict[str, Any]:
    """Of a simulated user."""
    shown = _changed(user, *(each.name for each in fields(user) if each.name != "model"))
    return {"user": user.model} | {f"user.{k}": v for k, v in shown.items()} if user.given else {}


def _changed(settings: Any, *names: str) -> dict[str, Any]:
    """Settings that differ from their defaults."""
    default = type(settings)()
    return {
        name: getattr(settings, name)
        for name in names
        if getattr(settings, name) != getattr(default, name)
    }
