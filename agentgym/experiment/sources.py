"""Environments of a run: named or given as an object, with or without further tools."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from agentgym.env import registry
from agentgym.env.base import TextEnv
from agentgym.env.by_class import load_object
from agentgym.env.executor import MakeEnv
from agentgym.env.panel import Panel
from agentgym.env.registry import EnvFactory
from agentgym.errors import ConfigError
from agentgym.rollout.policies import names_policy
from agentgym.rollout.prompts import LAYOUTS
from agentgym.settings import AgentSettings, Experiment, UserSettings
from agentgym.types import Task

OBJECT = "object:"
"""Prefix of a name in ``config.yaml`` that stands for an object given in Python."""
DEFAULT_MAX_TURNS = 50
"""Turn limit where neither the settings nor the environment sets one."""

EnvObject: TypeAlias = type[TextEnv] | Callable[..., TextEnv]
"""A ``TextEnv`` class, or a function that returns an instance."""


def object_name(given: Any) -> str:
    """How a file names an object: ``object:Maze``."""
    return OBJECT + str(getattr(given, "__name__", type(given).__name__))


def is_object(name: object) -> bool:
    """Whether a name in the settings stands for an object given in Python."""
    return isinstance(name, str) and name.startswith(OBJECT)


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What a run uses that was given as an object in Python; each is unset where a name is used."""

    env: EnvObject | None = None
    tools: tuple[Any, ...] = ()
    model: Any = None
    """Hugging Face causal language model; left as it is, training works on a copy."""
    tokenizer: Any = None
    agent_program: Any = None
    """Function that plays one episode through the endpoint that it is given."""


def is_policy(name: str | Path | None, experiment: Experiment) -> bool:
    """Whether a model's name stands for a policy without weights, such as ``oracle``."""
    # A chat endpoint names models as it likes, such as `mistral:latest`.
    return experiment.engine != "openai" and not is_object(name) and names_policy(name)


def check_objects(experiment: Experiment, objects: Objects) -> None:
    """Refuse settings that name an object which is not given.

    Raises:
        ConfigError: Naming the first of them.
    """
    tools = next(filter(is_object, experiment.tools), None)
    for field_name, name, given in (
        ("env", experiment.env, objects.env),
        ("model", experiment.model, objects.model),
        ("tools", tools, objects.tools),
        ("agent_program", experiment.agent_program, objects.agent_program),
    ):
        if is_object(name) and not given:
            raise ConfigError(not_nameable(field_name, str(name)))


def not_nameable(field_name: str, name: str) -> str:
    """The message for an object that the settings name and that is not given."""
    bare = name.removeprefix(OBJECT)
    return (
        f"the {field_name} of this run is the Python object {bare}, which a file cannot name: "
        f"continue from Python, with agentgym.train(resume=..., {field_name}={bare})"
    )


def source_of(experiment: Experiment, objects: Objects | None = None) -> EnvSource:
    """The environments of an experiment."""
    given = objects or Objects()
    listed = {"admissible": True} if shows_admissible(experiment.agent) else {}
    return EnvSource(
        env=given.env or experiment.env,
        kwargs={**experiment.env_args, **listed},
        tools=given.tools or experiment.tools,
        user=experiment.user,
    )


def shows_admissible(settings: AgentSettings) -> bool:
    """Whether prompts list the admissible actions: as set, else as the layout takes."""
    if settings.show_admissible is None:
        return LAYOUTS[settings.prompt].show_admissible
    return settings.show_admissible


@dataclass(frozen=True, kw_only=True)
class EnvSource:
    """Creates the environments of a run; a plain value that can be sent to another process."""

    env: str | EnvObject
    """Environment id, or the class or factory of one."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment."""
    tools: tuple[Any, ...] = ()
    """Functions, or names such as ``file.py:function``, that the agent can call in addition."""
    user: UserSettings = field(default_factory=UserSettings)
    """A simulated user, if one is given."""

    @property
    def id(self) -> str:
        """The id that tasks and panels carry."""
        return registry.label(self.env) if isinstance(self.env, str) else object_name(self.env)

    def bare(self) -> TextEnv:
        """A new environment without Gymnasium's wrappers.

        Raises:
            ConfigError: There is no such environment, it takes no such keyword, or a tool does not
                exist.
            MissingExtra: A package is not installed.
        """
        made = self._with_tools()
        if not self.user.given:
            return made
        from agentgym.experiment.users import with_user

        return with_user(made, self.user)

    def _with_tools(self) -> TextEnv:
        made = self._registered() if isinstance(self.env, str) else self._called(self.env)
        if not self.tools:
            return made
        from agentgym.tools.env import ToolEnv, WithTools

        tools = [load_object(each) if isinstance(each, str) else each for each in self.tools]
        if isinstance(made, ToolEnv):
            made.add_tools(tools)
            return made
        return WithTools(made, tools)

    def make(self, max_turns: int | None = None) -> gymnasium.Env[str, str]:
        """A new environment, truncated after ``max_turns``; unset: its registered limit."""
        if isinstance(self.env, str) and not self._extended:
            return registry.make(self.env, max_episode_steps=max_turns, **self.kwargs)
        env: gymnasium.Env[str, str] = OrderEnforcing(self.bare())
        limit = max_turns or self.registered_limit()
        return env if limit is None else TimeLimit(env, limit)

    def factory(self, max_turns: int) -> MakeEnv:
        """The function from tasks to environments that a player calls."""
        if isinstance(self.env, str) and not self._extended:
            return EnvFactory(env=self.env, kwargs=self.kwargs, max_turns=max_turns)
        return _Limited(self, max_turns)

    def panel(self, split: str) -> Panel:
        """The frozen tasks of a split."""
        bare = self.bare()
        try:
            return self.panel_of(bare, split)
        finally:
            bare.close()

    def panel_of(self, bare: TextEnv, split: str) -> Panel:
        """The panel of an environment that is already made."""
        return Panel(self.id, split, tuple(Task(self.id, id_) for id_ in bare.tasks(split)))

    def calls_only(self) -> bool:
        """Whether every action is a call of a tool."""
        bare = self.bare()
        try:
            return bare.calls_only
        finally:
            bare.close()

    @property
    def _extended(self) -> bool:
        """Whether the environment has more than its own actions."""
        return bool(self.tools) or self.user.given

    def registered_limit(self) -> int | None:
        """Turn limit that the environment was registered with; None where there is none."""
        if isinstance(self.env, str):
            limit: int | None = registry.spec(self.env).max_episode_steps
            return limit
        return getattr(self.env, "max_turns", None)

    def check_workers(self) -> None:
        """Refuse objects that worker processes cannot import.

        Raises:
            ConfigError: Naming the environment.
        """
        try:
            pickle.dumps(self)
            found = not _in_notebook(self.env) and not any(map(_in_notebook, self.tools))
        except Exception:
            found = False
        if not found:
            raise ConfigError(
                f"worker processes cannot import {self.id} or its tools: move them to a module, or "
                f"set rollout.workers to 0"
            )

    def _registered(self) -> TextEnv:
        assert isinstance(self.env, str)
        return registry.world(self.env, **self.kwargs)

    def _called(self, factory: EnvObject) -> TextEnv:
        try:
            made = factory(**self.kwargs)
        except TypeError as problem:
            raise ConfigError(f"{self.id}: {problem}") from problem
        if not isinstance(made, TextEnv):
            raise ConfigError(
                f"{self.id} makes a {type(made).__name__}, expected an agentgym.TextEnv"
            )
        return made


@dataclass(frozen=True)
class _Limited:
    source: EnvSource
    max_turns: int

    def __call__(self, task: Task) -> gymnasium.Env[str, str]:
        return self.source.make(self.max_turns)


def _in_notebook(given: Any) -> bool:
    """Whether an object is defined in ``__main__`` where that is not a file."""
    import __main__

    module = getattr(given, "__module__", None)
    return module == "__main__" and not hasattr(__main__, "__file__")


def with_turn_limit(experiment: Experiment, source: EnvSource) -> Experiment:
    """The settings with ``rollout.max_turns`` set, from the environment's registration if unset."""
    if experiment.rollout.max_turns is not None:
        return experiment
    limit = source.registered_limit() or DEFAULT_MAX_TURNS
    return replace(experiment, rollout=replace(experiment.rollout, max_turns=limit))
