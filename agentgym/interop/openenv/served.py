"""What is served: an environment, how it is made, its tasks, and what it states about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentgym.env.base import SPLITS, TextEnv
from agentgym.env.registry import label, spec, world
from agentgym.errors import ConfigError

ACTION_SCHEMA: dict[str, Any] = {
    "title": "TextAction",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "description": "What the agent writes."},
        "metadata": {"type": "object"},
    },
    "required": ["text"],
}
OBSERVATION_SCHEMA: dict[str, Any] = {
    "title": "TextObservation",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "description": "What the agent reads."},
        "goal": {"type": "string", "description": "What to achieve; sent by reset."},
        "manual": {"type": "string", "description": "How to act; sent by reset."},
        "done": {"type": "boolean"},
        "reward": {"type": ["number", "null"]},
        "metadata": {
            "type": "object",
            "description": "task_id, task_type, score, won, action_valid, terminated, truncated; "
            "for the trainer, not for the agent.",
        },
    },
    "required": ["text"],
}
STATE_SCHEMA: dict[str, Any] = {
    "title": "EpisodeState",
    "type": "object",
    "properties": {
        "episode_id": {"type": ["string", "null"]},
        "step_count": {"type": "integer", "minimum": 0},
        "task_id": {"type": "string"},
        "seed": {"type": ["integer", "null"]},
    },
    "required": ["episode_id", "step_count"],
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """An environment to serve.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: The environment's own package is not installed.
    """

    env: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    audit: bool = False
    """Also answer what only a checker may ask, such as the oracle's plan."""

    def make(self, **more: Any) -> TextEnv:
        """A new environment, without a turn limit; sessions count turns themselves."""
        return world(self.env, **{**self.kwargs, **more})

    @property
    def name(self) -> str:
        """Its name in routes: a registered id without namespace, in one path segment."""
        return label(self.env).rpartition("/")[2].replace(":", ".")

    def facts(self) -> dict[str, Any]:
        """What a client of ours should know beyond OpenEnv's routes."""
        bare = self.make()
        try:
            return {
                "env": label(self.env),
                "max_turns": spec(self.env).max_episode_steps,
                "stochastic": bare.stochastic,
                "admissible_exact": bare.admissible_exact,
                "fork": bare.promises.fork,
                "seeds": bare.promises.seeds,
                "panels": bare.promises.panels,
                "success": bare.promises.success,
                "validity": bare.promises.validity,
                "examples": list(getattr(bare.action_space, "examples", ())),
                "audit": self.audit,
            }
        finally:
            bare.close()

    def metadata(self) -> dict[str, Any]:
        """OpenEnv's description of an environment; ours is the manual."""
        bare = self.make()
        try:
            return {
                "name": self.name,
                "description": bare.manual() or type(bare).__name__,
                "readme_content": None,
                "version": None,
                "author": None,
                "documentation_url": None,
            }
        finally:
            bare.close()

    def splits(self) -> list[str]:
        """Names of the splits that have tasks."""
        bare = self.make()
        try:
            return [split for split in SPLITS if _has_tasks(bare, split)]
        finally:
            bare.close()

    def tasks(self, split: str) -> list[dict[str, Any]]:
        """The tasks of a split, as OpenEnv's task specifications.

        Raises:
            ConfigError: There is no such split.
        """
        bare = self.make()
        try:
            found = bare.tasks(split)
            return [{"id": id_, "index": n, "split": split} for n, id_ in enumerate(found)]
        finally:
            bare.close()


def _has_tasks(bare: TextEnv, split: str) -> bool:
    try:
        return bool(bare.tasks(split))
    except ConfigError:
        return False
