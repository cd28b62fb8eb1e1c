"""From the arguments of the front door to settings, and to the objects that settings only name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from agentgym.env import registry
from agentgym.errors import ConfigError
from agentgym.experiment.plan import Plan, load_plan, plan_for_env, recipe_settings
from agentgym.experiment.presets import pretrained_rollout
from agentgym.experiment.sources import EnvObject, EnvSource, Objects, object_name
from agentgym.programs.process import ProgramFunction
from agentgym.settings import (
    AgentSettings,
    AlarmSettings,
    ClusterSettings,
    CurriculumSettings,
    EndpointSettings,
    EngineKind,
    Experiment,
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    PanelSettings,
    ProgramSettings,
    RolloutSettings,
    ScheduleSettings,
    ScoringSettings,
    ScratchSettings,
    UserSettings,
    Value,
)

Section = Mapping[str, Any]
"""Some fields of a section of the settings; the others stay as they are."""


class Overrides(TypedDict, total=False):
    """Fields of ``Experiment`` as keywords; a section takes its settings object or some fields."""

    env_args: Mapping[str, Value]
    engine: EngineKind
    server: str | None
    engine_device: str | None
    batch_invariant: bool
    seed: int
    steps: int
    max_env_steps: int | None
    tasks_per_step: int
    save_every: int
    save_async: bool
    track: Sequence[str]
    compress_episodes: bool
    agent: AgentSettings | Section
    rollout: RolloutSettings | Section
    schedule: ScheduleSettings | Section
    cluster: ClusterSettings | Section
    curriculum: CurriculumSettings | Section
    scratch: ScratchSettings | Section
    imitation: ImitationSettings | Section
    optimizer: OptimizerSettings | Section
    lora: LoraSettings | Section
    alarms: AlarmSettings | Section
    panel: PanelSettings | Section
    endpoint: EndpointSettings | Section
    scoring: ScoringSettings | Section
    program: ProgramSettings | Section
    user: UserSettings | Section


def env_source(
    env: str | EnvObject, tools: Sequence[Callable[..., Any] | str], kwargs: Mapping[str, Any]
) -> EnvSource:
    """The environment that the arguments name or hold."""
    named = registry.full_id(env) if isinstance(env, str) else env
    return EnvSource(env=named, kwargs=kwargs, tools=tuple(tools))


def plan_of(
    algorithm: Any, world: str | None, settings: Experiment | None, model: str | None, lora: bool
) -> Plan:
    """The plan of a run, before the fields that differ.

    Raises:
        ConfigError: Both an environment and settings are given.
    """
    named = algorithm if isinstance(algorithm, str) else None
    algo = None if named is not None else algorithm
    if world is not None:
        if settings is not None:
            raise ConfigError("world and settings both set everything: give one of them")
        return plan_for_env(world, named, algo=algo, model=model, lora=lora)
    plan = load_plan(None, named, algo=algo, model=model, lora=lora)
    return plan if settings is None else replace(plan, experiment=settings)


def settings_of(model: Any, world: str | None, env: str | EnvObject | None) -> Experiment:
    """Settings of an evaluation that gives none: of the environment's recipe, else of the run."""
    from agentgym.experiment.run_folder import RunFolder

    if world is not None:
        return recipe_settings(world, model="pretrained")
    folder = RunFolder.of_checkpoint(Path(model)) if isinstance(model, str | Path) else None
    if folder is None:
        return Experiment(rollout=pretrained_rollout())
    found = load_plan(folder.config)
    if env is not None:  # Arguments of one environment mean nothing to another.
        return replace(found.experiment, env_args={})
    return found.experiment


def objects_of(
    env: Any,
    model: Any,
    tokenizer: Any,
    tools: Sequence[Callable[..., Any] | str],
    agent_program: ProgramFunction | str | None = None,
) -> Objects:
    """What the settings cannot name.

    Raises:
        ConfigError: A model in memory has no tokenizer.
    """
    in_memory = None if model is None or isinstance(model, str | Path) else model
    if in_memory is not None and tokenizer is None:
        raise ConfigError("a model in memory needs its tokenizer: give `tokenizer=...`")
    return Objects(
        env=None if env is None or isinstance(env, str) else env,
        tools=tuple(tools) if any(not isinstance(each, str) for each in tools) else (),
        model=in_memory,
        tokenizer=tokenizer,
        agent_program=None if isinstance(agent_program, str) else agent_program,
    )


def named_in_settings(
    env: Any,
    model: Any,
    tools: Sequence[Callable[..., Any] | str],
    agent_program: ProgramFunction | str | None = None,
) -> dict[str, Any]:
    """The same as the settings name it."""
    found: dict[str, Any] = {}
    if env is not None:
        found["env"] = registry.full_id(env) if isinstance(env, str) else object_name(env)
    if model is not None:
        found["model"] = str(model) if isinstance(model, str | Path) else object_name(model)
    if agent_program is not None:
        named = isinstance(agent_program, str)
        found["agent_program"] = agent_program if named else object_name(agent_program)
    if tools:
        found["tools"] = [
            registry.full_id(each) if isinstance(each, str) else object_name(each) for each in tools
        ]
    return found
