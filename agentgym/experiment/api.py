"""The library in Python: make an environment, list a panel, train, evaluate, compare.

``import agentgym`` offers these functions; this module is loaded on first use. They work in scripts
and in notebooks, where an event loop is running already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import gymnasium
from rich.console import Console

from agentgym.env import registry
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.compare import Comparison, compare_reports
from agentgym.evaluation.files import read_report
from agentgym.evaluation.report import Report
from agentgym.experiment.plan import Plan, load_plan, override, plan_for_env, recipe_settings
from agentgym.experiment.presets import pretrained_rollout
from agentgym.experiment.result import TrainResult
from agentgym.experiment.sources import (
    EnvObject,
    EnvSource,
    Objects,
    object_name,
)
from agentgym.settings import (
    AgentSettings,
    AlarmSettings,
    EndpointSettings,
    EngineKind,
    Experiment,
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    PanelSettings,
    RolloutSettings,
    ScheduleSettings,
    ScratchSettings,
    Value,
)
from agentgym.utils.progress import Display

if TYPE_CHECKING:
    from typing import Unpack

    from agentgym.algorithm import AlgorithmSettings
    from agentgym.models.protocols import CausalLM, Tokenizer

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
    agent: AgentSettings | Section
    rollout: RolloutSettings | Section
    schedule: ScheduleSettings | Section
    scratch: ScratchSettings | Section
    imitation: ImitationSettings | Section
    optimizer: OptimizerSettings | Section
    lora: LoraSettings | Section
    alarms: AlarmSettings | Section
    panel: PanelSettings | Section
    endpoint: EndpointSettings | Section


def make(
    env: str | EnvObject,
    *,
    tools: Sequence[Callable[..., Any] | str] = (),
    max_turns: int | None = None,
    **kwargs: Any,
) -> gymnasium.Env[str, str]:
    """Make an environment, ready to be reset.

    Args:
        env: Environment id, short name or ``file.py:ClassName``; or a ``TextEnv`` class or a
            function that returns one.
        tools: Functions that the agent can call in addition to its actions.
        max_turns: Steps after which an episode is truncated; unset: the registered limit.
            Gymnasium's name, ``max_episode_steps``, works too.
        **kwargs: Keyword arguments of the environment.

    Raises:
        ConfigError: There is no such environment, or it takes no such keyword.
        MissingExtra: A package of the environment is not installed.

    Examples:
        >>> env = make("hotter", high=10)
        >>> observation, info = env.reset(seed=0)
        >>> info["goal"]
        'Find the number.'
    """
    limit = kwargs.pop("max_episode_steps", max_turns)
    return _source(env, tools, kwargs).make(limit)


def panel(env: str | EnvObject, *, split: str = "test", **kwargs: Any) -> Panel:
    """The frozen panel of tasks of a split, in a fixed order, with a digest.

    Args:
        env: As in ``make``.
        split: ``train``, ``valid``, ``test`` or another split that the environment names.
        **kwargs: Keyword arguments of the environment.

    Raises:
        ConfigError: The environment has no such split.

    Examples:
        >>> len(panel("hotter", split="valid"))
        100
    """
    return _source(env, (), kwargs).panel(split)


def load_recipe(env: str, *, pretrained: bool = False, lora: bool = False) -> Experiment:
    """The settings of the recipe that an environment comes with; the defaults where it has none.

    Args:
        env: Environment id or short name.
        pretrained: For a pretrained model, instead of one made from nothing.
        lora: For adapters of a pretrained model.

    Raises:
        ConfigError: There is no such environment.

    Examples:
        >>> load_recipe("alfworld").rollout.max_turns
        30
    """
    return recipe_settings(env, model="pretrained" if pretrained or lora else None, lora=lora)


def train(
    algorithm: str | AlgorithmSettings | None = None,
    *,
    env: str | EnvObject | None = None,
    model: str | Path | CausalLM | None = None,
    tokenizer: Tokenizer | None = None,
    tools: Sequence[Callable[..., Any] | str] = (),
    world: str | None = None,
    settings: Experiment | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: bool = True,
    **overrides: Unpack[Overrides],
) -> TrainResult:
    """Train an agent, and evaluate it before and after on held-out tasks.

    A run folder is written as by ``agentgym train``. Calling again with ``resume`` continues an
    interrupted run; with ``steps`` as well, a finished one is extended.

    Args:
        algorithm: Name of an algorithm, such as ``"grpo"`` or ``"epo.paper"``, or an instance of an
            algorithm's settings; unset: ``gigpo``.
        env: Environment id, short name or ``file.py:ClassName``; or a ``TextEnv`` class or a
            function that returns one.
        model: Hugging Face folder or hub id, or a causal language model in memory, which is left as
            it is; unset: a small model is made from nothing.
        tokenizer: Tokenizer object; unset: the one of the model.
        tools: Functions that the agent can call in addition to its actions.
        world: Environment to train in with the settings of its recipe.
        settings: All settings; unset: the defaults, or those of the recipe; with a model, those
            that fit a pretrained model.
        out: Run folder; unset: ``runs/ALGORITHM-seedSEED-TIME``.
        resume: Run folder to continue. What was given as an object must be given again.
        progress: Show progress.
        **overrides: Fields of ``Experiment`` that differ from the settings.

    Returns:
        The reports before and after, and the folder.

    Raises:
        ConfigError: Something does not fit; nothing has been written.
        MissingExtra: A package is not installed.
        TrainingError: Training cannot continue.
    """
    from agentgym.experiment.start import start

    objects = _objects(env, model, tokenizer, tools)
    named = _named(env, model, tools)
    if resume is None:
        lora = override(Experiment(), {"lora": overrides.get("lora", {})}).lora.rank is not None
        plan = _plan(algorithm, world, settings, named.get("model"), lora)
    else:
        if world or settings or out:
            raise ConfigError("a resumed run keeps its world, settings and folder")
        algo = None if algorithm is None or isinstance(algorithm, str) else algorithm
        plan = load_plan(Path(resume) / "config.yaml", algo=algo)
    return start(
        replace(plan, experiment=override(plan.experiment, {**overrides, **named})),
        out=None if out is None else Path(out),
        resume=None if resume is None else Path(resume),
        previous=plan,
        display=_display(progress),
        objects=objects,
    )


def evaluate(
    model: str | Path | CausalLM | TrainResult,
    *,
    env: str | EnvObject | None = None,
    tokenizer: Tokenizer | None = None,
    tools: Sequence[Callable[..., Any] | str] = (),
    world: str | None = None,
    settings: Experiment | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **overrides: Unpack[Overrides],
) -> Report:
    """Play a frozen panel of tasks with a model, several episodes per task.

    Episodes are written to a file as they end; the same call plays only the missing ones.

    Args:
        model: Checkpoint of a run, Hugging Face folder or hub id, the ``TrainResult`` of a run, or
            a causal language model in memory; or ``"oracle"``, ``"random"`` or
            ``"file.py:function"``, from observation and info to an action. A checkpoint of a run is
            evaluated with the settings of its run unless others are given.
        env: As in ``train``.
        tokenizer: Tokenizer object; unset: the one of the model.
        tools: Functions that the agent can call in addition to its actions.
        world: Environment to evaluate in with the settings of its recipe.
        settings: All settings; unset: those of the run or recipe, else the defaults.
        out: File of the episodes; unset: one in ``evals`` named after panel, model and settings.
        progress: Show progress.
        **overrides: Fields of ``Experiment`` that differ from the settings.

    Raises:
        ConfigError: Something does not fit.
        MissingExtra: A package is not installed.
    """
    from agentgym.experiment.job import evaluate_blocking
    from agentgym.experiment.preflight import check

    if isinstance(model, TrainResult):
        model = model.checkpoint
    base = settings or _settings_of(model, world, env)
    objects = _objects(env, model, tokenizer, tools)
    wanted = override(base, {**overrides, **_named(env, model, tools)})
    check(wanted, objects=objects)
    path = None if out is None else Path(out)
    return evaluate_blocking(wanted, path, _display(progress), objects=objects)


def compare(
    *evaluations: Report | TrainResult | str | Path, names: Sequence[str] = ()
) -> Comparison:
    """Compare evaluations on one panel pair by pair, task by task.

    Args:
        *evaluations: Two or more reports, evaluation files or run folders; a run counts as its
            evaluation after training, and a run alone is compared with itself before training.
        names: What to call them; unset: the names of their models.

    Returns:
        Differences of pass@1 with paired intervals that resample tasks, and p-values adjusted by
        Holm's method.

    Raises:
        ConfigError: There is nothing to compare, or the panels differ.
    """
    if len(evaluations) == 1 and (folder := _run_of(evaluations[0])) is not None:
        files = [folder / "eval" / f"{name}.jsonl" for name in ("before", "after")]
        return compare_reports([read_report(file) for file in files], ("before", "after"))
    return compare_reports([_report(each) for each in evaluations], names)


def _run_of(given: Any) -> Path | None:
    """The folder of a run."""
    if isinstance(given, TrainResult):
        return given.folder
    if isinstance(given, str | Path) and (Path(given) / "config.yaml").is_file():
        return Path(given)
    return None


def _report(given: Report | TrainResult | str | Path) -> Report:
    if isinstance(given, Report):
        return given
    if (folder := _run_of(given)) is not None:
        return read_report(folder / "eval" / "after.jsonl")
    return read_report(Path(cast("str | Path", given)))


def _display(progress: bool) -> Display:
    return Display(Console() if progress else None)


def _source(
    env: str | EnvObject, tools: Sequence[Callable[..., Any] | str], kwargs: Mapping[str, Any]
) -> EnvSource:
    named = registry.full_id(env) if isinstance(env, str) else env
    return EnvSource(env=named, kwargs=kwargs, tools=tuple(tools))


def _plan(
    algorithm: Any, world: str | None, settings: Experiment | None, model: str | None, lora: bool
) -> Plan:
    named = algorithm if isinstance(algorithm, str) else None
    algo = None if named is not None else algorithm
    if world is not None:
        if settings is not None:
            raise ConfigError("world and settings both set everything: give one of them")
        return plan_for_env(world, named, algo=algo, model=model, lora=lora)
    plan = load_plan(None, named, algo=algo, model=model, lora=lora)
    return plan if settings is None else replace(plan, experiment=settings)


def _settings_of(model: Any, world: str | None, env: str | EnvObject | None) -> Experiment:
    """Settings of an evaluation that gives none: of the world's recipe, else of the run."""
    from agentgym.experiment.run_folder import RunFolder

    if world is not None:
        return load_recipe(world, pretrained=True)
    folder = RunFolder.of_checkpoint(Path(model)) if isinstance(model, str | Path) else None
    if folder is None:
        return Experiment(rollout=pretrained_rollout())
    found = load_plan(folder.config)
    if env is not None:  # Arguments of one environment mean nothing to another.
        return replace(found.experiment, env_args={})
    return found.experiment


def _objects(
    env: Any, model: Any, tokenizer: Any, tools: Sequence[Callable[..., Any] | str]
) -> Objects:
    """What the settings cannot name."""
    in_memory = None if model is None or isinstance(model, str | Path) else model
    if in_memory is not None and tokenizer is None:
        raise ConfigError("a model in memory needs its tokenizer: give `tokenizer=...`")
    return Objects(
        env=None if env is None or isinstance(env, str) else env,
        tools=tuple(tools) if any(not isinstance(each, str) for each in tools) else (),
        model=in_memory,
        tokenizer=tokenizer,
    )


def _named(env: Any, model: Any, tools: Sequence[Callable[..., Any] | str]) -> dict[str, Any]:
    """The same as the settings name it."""
    found: dict[str, Any] = {}
    if env is not None:
        found["env"] = registry.full_id(env) if isinstance(env, str) else object_name(env)
    if model is not None:
        found["model"] = str(model) if isinstance(model, str | Path) else object_name(model)
    if tools:
        found["tools"] = [
            registry.full_id(each) if isinstance(each, str) else object_name(each) for each in tools
        ]
    return found
