"""Finding environments: registered by installed packages, or classes in a file or a module."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from agentgym.env import by_class, schemes
from agentgym.env.argument_types import choices, wrong_type
from agentgym.env.base import TextEnv
from agentgym.errors import ConfigError, MissingExtra, did_you_mean
from agentgym.types import Task

_INSTALLED: set[str] = set()
"""Ids that installed packages registered as text environments."""


@cache
def register_environments() -> None:
    """Let every installed package register its environments with Gymnasium.

    Gymnasium no longer loads plug-ins itself, so ``import agentgym`` calls this: each entry
    point of the group ``agentgym.environments`` names a function without arguments that calls
    ``gymnasium.register``. It must not import the environment's own dependencies. A package that
    fails is skipped with a warning.
    """
    before = set(gymnasium.registry)
    for entry in entry_points(group="agentgym.environments"):
        try:
            entry.load()()
        except (Exception, SystemExit) as problem:
            package = entry.dist.name if entry.dist else entry.name
            warnings.warn(
                f"package {package!r} is skipped: its entry point {entry.name} = {entry.value} "
                f"failed with {type(problem).__name__}: {problem}",
                stacklevel=2,
            )
    _INSTALLED.update(set(gymnasium.registry) - before)


def environments() -> tuple[str, ...]:
    """Ids of the registered text environments, sorted.

    Those that installed packages announce, and classes that this process has registered itself.
    What other libraries register with Gymnasium is left out.
    """
    register_environments()
    found = (id_ for id_, each in gymnasium.registry.items() if id_ in _INSTALLED or _is_text(each))
    return tuple(sorted(found))


def _is_text(registered: EnvSpec) -> bool:
    """Whether a registration is of a text environment, as far as can be seen without loading it.

    A library that registers environments of its own kind is loaded itself; a class that is not
    loaded, in a package that is not, was registered for us.
    """
    kind: Any = registered.entry_point
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        if module not in sys.modules:
            return module.partition(".")[0] not in sys.modules
        kind = getattr(sys.modules[module], name, None)
    return inspect.isclass(kind) and issubclass(kind, TextEnv)


def full_id(name: str) -> str:
    """The id behind any name of an environment that a user may give; other ids stay as they are.

    - a short name, such as ``webshop``: the registered id;
    - ``file.py:ClassName``: the same with the absolute path, valid in every folder and process;
    - ``package.module:ClassName``: stays as it is;
    - ``KIND:TARGET``, an environment of another library, such as ``openenv:URL``: stays as it is;
    - ``package.module:namespace/Name-v0``: the id, once the module has registered it.

    Raises:
        ConfigError: The file or module cannot be imported.

    Examples:
        >>> full_id("hotter")
        'agentgym/Hotter-v0'
    """
    if schemes.split(name):
        return schemes.absolute(name)
    if by_class.names_class(name):
        return by_class.absolute(name)
    if ":" in name:
        return _imported(name)
    short = {short_name(id_): id_ for id_ in environments()}
    return short.get(name.lower(), name)


def short_name(env: str) -> str:
    """The short name of a registered id, in lower case; any other name stays as it is.

    Examples:
        >>> short_name("agentgym/WebShop-v0")
        'webshop'
    """
    return env.partition("/")[2].rpartition("-v")[0].lower() if env in environments() else env


def label(env: str) -> str:
    """What names an environment in tasks, panels, seeds and records, equal on every machine.

    Examples:
        >>> label("/home/me/project/treasure.py:Treasure")
        'treasure.py:Treasure'
        >>> label("agentgym/Hotter-v0")
        'agentgym/Hotter-v0'
    """
    if schemes.split(env):
        return schemes.label(env)
    return by_class.label(env) if by_class.names_class(env) else env


def spec(env: str) -> EnvSpec:
    """How an environment is made, with its turn limit ``max_episode_steps``.

    Args:
        env: Any name that ``full_id`` accepts.

    Raises:
        ConfigError: There is no such environment.
    """
    id_ = full_id(env)
    if foreign := schemes.split(id_):
        return _foreign_spec(*foreign)
    if by_class.names_class(id_):
        return by_class.spec(id_)
    if id_ not in gymnasium.registry:
        raise _unknown(env)
    return gymnasium.registry[id_]


def make(env: str, **kwargs: Any) -> gymnasium.Env[str, str]:
    """``gymnasium.make`` with our errors and without Gymnasium's array-minded checker.

    Args:
        env: Any name that ``full_id`` accepts.
        **kwargs: Passed to the environment; ``max_episode_steps`` replaces the turn limit.

    Raises:
        ConfigError: There is no such environment, it takes no such keyword, or a value of another
            type.
        MissingExtra: The environment's own package is not installed.
    """
    found = spec(env)
    if kwargs and (wrong := wrong_type(kwargs, _initialisers(_creator(env, found)))):
        raise ConfigError(f"{env}: {wrong}")
    try:
        return gymnasium.make(found, disable_env_checker=True, **kwargs)
    except TypeError as problem:
        raise _refused(env, kwargs, problem) from problem


def world(env: str, **kwargs: Any) -> TextEnv:
    """The bare environment, without Gymnasium's wrappers; raises what ``make`` does."""
    bare = make(env, **kwargs).unwrapped
    if not isinstance(bare, TextEnv):
        raise ConfigError(f"{env} is a {type(bare).__name__}, expected an agentgym.TextEnv")
    return bare


@dataclass(frozen=True, kw_only=True)
class EnvFactory:
    """Makes the environment of a task; a plain value, so that it can be sent to another process."""

    env: str = ""
    """What to make; unless given, what the task names. Needed for ``file.py:ClassName`` when the
    working folder is not that of the file."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment."""
    max_turns: int | None = None
    """Turn limit; unless given, as registered."""

    def __post_init__(self) -> None:
        """Make the name valid in other processes."""
        object.__setattr__(self, "env", full_id(self.env) if self.env else "")

    def __call__(self, task: Task) -> gymnasium.Env[str, str]:
        """The environment, not yet reset; raises what ``make`` does."""
        return make(self.env or task.env, max_episode_steps=self.max_turns, **self.kwargs)


def recipe(env: str) -> Path | None:
    """The settings to train an environment with, where they differ from the defaults.

    They are the file ``recipe.yaml`` beside the module of the environment, of any package; None
    where there is none. A registered environment is not imported.

    Raises:
        ConfigError: There is no such environment.
    """
    found = spec(env).entry_point
    if isinstance(found, str):
        module = find_spec(found.partition(":")[0])
        origin = module.origin if module else None
    else:
        origin = inspect.getsourcefile(found) if inspect.isclass(found) else None
    file = Path(origin).with_name("recipe.yaml") if origin else None
    return file if file and file.is_file() else None


@dataclass(frozen=True, slots=True)
class Argument:
    """A keyword argument of an environment."""

    name: str
    type: str
    """As annotated, names of choices resolved; empty where it is not."""
    default: Any
    """``inspect.Parameter.empty`` where the argument is required."""


def arguments(env: str) -> tuple[Argument, ...]:
    """The keyword arguments that an environment takes, its own first, then those of ``TextEnv``.

    Raises:
        ConfigError: There is no such environment, or its module cannot be imported.
        MissingExtra: The environment's own package is not installed.
    """
    creator = _creator(env, spec(env))
    found: dict[str, Argument] = {}
    for init in _initialisers(creator):
        taken = inspect.signature(init).parameters.values()
        for each in taken:
            if each.name != "self" and each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD):
                written = choices(init).get(each.name) or (
                    "" if each.annotation is each.empty else str(each.annotation)
                )
                found.setdefault(each.name, Argument(each.name, written, each.default))
        if not any(each.kind is each.VAR_KEYWORD for each in taken):
            break
    return tuple(found.values())


def _initialisers(creator: Any) -> list[Any]:
    if not inspect.isclass(creator):
        return [creator]
    return [vars(kind)["__init__"] for kind in creator.__mro__ if "__init__" in vars(kind)]


def _creator(env: str, found: EnvSpec) -> Any:
    entry_point = found.entry_point
    if not isinstance(entry_point, str):
        return entry_point
    try:
        return load_env_creator(entry_point)
    except MissingExtra:
        raise
    except Exception as problem:
        raise ConfigError(
            f"{env}: {entry_point} cannot be imported, {type(problem).__name__}: {problem}"
        ) from problem


def _refused(env: str, kwargs: Mapping[str, Any], problem: TypeError) -> ConfigError:
    """The error for keyword arguments that the environment does not take."""
    known = {each.name for each in arguments(env)}
    wrong = [name for name in kwargs if name not in known and name != "max_episode_steps"]
    if not wrong:
        return ConfigError(f"{env}: {problem}")
    return ConfigError(
        f"{env} has no argument {wrong[0]!r}.{did_you_mean(wrong[0], known)} "
        f"Arguments: {', '.join(sorted(known))}"
    )


def _foreign_spec(kind: str, target: str) -> EnvSpec:
    """How an environment of another library is made; its adapter knows the turn limit."""
    named: Any = load_env_creator(schemes.SCHEMES[kind].entry_point)
    adapter = named.adapter(target)
    return EnvSpec(
        by_class.as_id(schemes.label(f"{kind}:{target}")),
        entry_point=f"{adapter.__module__}:{adapter.__qualname__}",
        max_episode_steps=adapter.turn_limit(target),
        kwargs={"target": target},
    )


def _imported(name: str) -> str:
    """The id of ``module:id``, after the module was imported."""
    module, _, id_ = name.partition(":")
    if id_ not in gymnasium.registry:
        by_class.load_module(module, name)
    if id_ not in gymnasium.registry:
        raise ConfigError(f"module {module} registers no environment {id_!r}")
    return id_


def _unknown(env: str) -> ConfigError:
    known = environments()
    near = did_you_mean(env, known)
    if not near and os.sep not in env:
        short = {short_name(id_) for id_ in known}
        near = did_you_mean(env.lower(), short)
    return ConfigError(
        f"no environment {env!r}.{near} Known: {', '.join(known)}; or give file.py:ClassName, or "
        f"one of another library: {', '.join(f'{kind}:...' for kind in schemes.SCHEMES)}"
    )
