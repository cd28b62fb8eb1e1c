"""A file of winning actions, so that the checker has an oracle for another's server."""

from __future__ import annotations

import json
from pathlib import Path

from agentgym.errors import ConfigError


def read_plans(path: str) -> dict[str, tuple[str, ...]]:
    """Task id to actions that win it.

    Raises:
        ConfigError: The file does not exist, or is no object of lists of texts.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"oracle: {path} cannot be read ({problem.strerror})") from None
    except ValueError as problem:
        raise ConfigError(f"oracle: {path} is no JSON ({problem})") from None
    right = isinstance(found, dict) and all(
        isinstance(plan, list) and all(isinstance(action, str) for action in plan)
        for plan in found.values()
    )
    if not right:
        raise ConfigError(f'oracle: {path} must be like {{"task id": ["an action", "another"]}}')
    return {task: tuple(plan) for task, plan in found.items()}
