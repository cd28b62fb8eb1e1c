"""Finding worlds and algorithms that installed packages declare as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from agentgym.errors import ConfigError, did_you_mean
from agentgym.types import Task

_BUILT_IN = frozenset(gymnasium.registry)
"""What Gymnasium itself registers: no text worlds."""

if TYPE_CHECKING:
    from agentgym.env.base import TextEnv


@cache
def register_environments() -> None:
    """Let every installed package register its worlds with Gymnasium.

    Gymnasium no longer loads plug-ins itself, so ``import agentgym`` calls this: each entry
    point of the group ``agentgym.environments`` names a function without arguments that calls
    ``gymnasium.register``. It must not import the world's own dependencies.
    """
    for entry in entry_points(group="agentgym.environments"):
        entry.load()()


def environments() -> tuple[str, ...]:
    """Ids of the registered worlds, sorted."""
    register_environments()
    return tuple(sorted(id_ for id_, spec in gymnasium.registry.items() if id_ not in _BUILT_IN))


def full_id(name: str) -> str:
    """The id of a world from its short name, such as ``webshop``; an id stays what it is.

    Examples:
        >>> full_id("hotter")
        'agentgym/Hotter-v0'
    """
    short = {short_name(id_): id_ for id_ in environments()}
    return short.get(name.lower(), name)


def short_name(env: str) -> str:
    """The short name of an id, in lower case; a name that is no id stays what it is.

    Examples:
        >>> short_name("agentgym/WebShop-v0")
        'webshop'
    """
    return env.partition("/")[2].rpartition("-v")[0].lower() if env in environments() else env


def make(env: str, **kwargs: Any) -> gymnasium.Env[str, str]:
    """``gymnasium.make`` with our errors and without Gymnasium's array-minded checker.

    Raises:
        ConfigError: No installed package registers this id, or it takes no such keyword.
        MissingExtra: The world's own package is not installed.
    """
    register_environments()
    if ":" not in env and env not in gymnasium.registry:
        raise _unknown(env)
    try:
        return gymnasium.make(env, disable_env_checker=True, **kwargs)
    except TypeError as problem:
        raise ConfigError(f"{env}: {problem}") from problem


def _unknown(env: str) -> ConfigError:
    known = environments()
    return ConfigError(
        f"no environment {env!r}.{did_you_mean(env, known)} Known: {', '.join(known)}"
    )


def recipe(env: str) -> Path | None:
    """The settings to train a world with, where they differ from the defaults.

    They are the file ``recipe.yaml`` beside the module of the world, of anybody's package; None
    where there is none. The world itself is not imported.

    Raises:
        ConfigError: No installed package registers this id.
    """
    register_environments()
    if env not in gymnasium.registry:
        raise _unknown(env)
    entry = gymnasium.registry[env].entry_point
    module = find_spec(entry.partition(":")[0]) if isinstance(entry, str) else None
    file = Path(module.origin).with_name("recipe.yaml") if module and module.origin else None
    return file if file and file.is_file() else None


@dataclass(frozen=True, kw_only=True)
class EnvFactory:
    """Makes the world of a task; a plain value, so that it can be sent to another process."""

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the world."""
    max_turns: int | None = None
    """Turns until the world is cut off; unless given, as registered."""

    def __call__(self, task: Task) -> gymnasium.Env[str, str]:
        """The world, not yet reset; raises what ``make`` does."""
        return make(task.env, max_episode_steps=self.max_turns, **self.kwargs)


def world(env: str, **kwargs: Any) -> TextEnv:
    """The bare world behind an id, without Gymnasium's wrappers."""
    from agentgym.env.base import TextEnv

    bare = make(env, **kwargs).unwrapped
    if not isinstance(bare, TextEnv):
        raise ConfigError(f"{env} is a {type(bare).__name__}, expected an agentgym.TextEnv")
    return bare
