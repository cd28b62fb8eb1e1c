"""The library in Python: make an environment, list a panel, train, evaluate, score, compare.

``import agentgym`` offers these functions; this module is loaded on first use. They work in scripts
and in notebooks, where an event loop is running already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import gymnasium
from rich.console import Console

from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.compare import Comparison, compare_reports
from agentgym.evaluation.files import read_report
from agentgym.evaluation.report import Report
from agentgym.experiment.arguments import (
    Overrides,
    env_source,
    named_in_settings,
    objects_of,
    plan_of,
    settings_of,
)
from agentgym.experiment.plan import load_plan, override, recipe_settings
from agentgym.experiment.result import TrainResult
from agentgym.experiment.sources import EnvObject, object_name
from agentgym.programs.process import ProgramFunction
from agentgym.settings import Experiment, ScoringSettings
from agentgym.utils.concurrency import run_sync
from agentgym.utils.progress import Display

if TYPE_CHECKING:
    from typing import Unpack

    from agentgym.algorithm import AlgorithmSettings
    from agentgym.evaluation.records import EpisodeRecord
    from agentgym.models.protocols import CausalLM, Tokenizer
    from agentgym.scoring.rescore import Rescored
    from agentgym.scoring.scorer import Scorer

Evaluated: TypeAlias = Report | TrainResult | str | Path
"""A report, or where one can be read: a run, its folder, or an evaluation file."""


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
    return env_source(env, tools, kwargs).make(limit)


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
    return env_source(env, (), kwargs).panel(split)


def load_recipe(env: str, *, pretrained: bool = False, lora: bool = False) -> Experiment:
    """The settings of the recipe that an environment comes with; the defaults where it has none.

    Args:
        env: Environment id or short name.
        pretrained: For a pretrained model, instead of one made from scratch.
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
    agent_program: ProgramFunction | str | None = None,
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
            it is; unset: a small model is made from scratch.
        tokenizer: Tokenizer object; unset: the one of the model.
        tools: Functions that the agent can call in addition to its actions.
        agent_program: Agent program that plays; its calls of the model are trained on: a
            command, ``file.py:function``, or a function of ``agentgym.programs.values.Access``
            that may be a coroutine function and may return its own score.
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

    objects = objects_of(env, model, tokenizer, tools, agent_program)
    named = named_in_settings(env, model, tools, agent_program)
    if resume is None:
        lora = override(Experiment(), {"lora": overrides.get("lora", {})}).lora.rank is not None
        plan = plan_of(algorithm, world, settings, named.get("model"), lora)
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
    agent_program: ProgramFunction | str | None = None,
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
        agent_program: As in ``train``.
        world: Environment to evaluate in with the settings of its recipe.
        settings: All settings; unset: those of the run or recipe, else the defaults.
        out: File of the episodes; unset: one in ``evals`` named after panel, model and settings.
        progress: Show progress.
        **overrides: Fields of ``Experiment`` that differ from the settings.

    Raises:
        ConfigError: Something does not fit.
        MissingExtra: A package is not installed.
    """
    from agentgym.experiment.evaluations import evaluate_blocking
    from agentgym.experiment.preflight import check

    if isinstance(model, TrainResult):
        model = model.checkpoint
    base = settings or settings_of(model, world, env)
    objects = objects_of(env, model, tokenizer, tools, agent_program)
    wanted = override(base, {**overrides, **named_in_settings(env, model, tools, agent_program)})
    check(wanted, objects=objects)
    path = None if out is None else Path(out)
    return evaluate_blocking(wanted, path, _display(progress), objects=objects)


def score(
    source: str | Path,
    scorer: str | Callable[[EpisodeRecord], Any] | ScoringSettings,
    *,
    out: str | Path | None = None,
    progress: bool = True,
) -> Rescored:
    """Score stored episodes by another scorer, into a new file; see ``agentgym score``.

    Args:
        source: File of episodes; it stays as it is.
        scorer: A function of an episode that returns a number from 0 to 1, a truth value or None;
            its name, as ``"file.py:function"``; or settings that name a judge.
        out: The new file; unset: ``NAME.scored.jsonl`` beside the source. An existing one is
            continued.
        progress: Show what keeps a judge waiting.

    Raises:
        ConfigError: Something does not fit.
        EngineError: A judge does not answer.
    """
    from agentgym.scoring.make import make_scorer
    from agentgym.scoring.rescore import rescore
    from agentgym.scoring.scorer import FunctionScorer

    settings = scorer if isinstance(scorer, ScoringSettings) else ScoringSettings()
    if isinstance(scorer, str):
        settings = ScoringSettings(scorer=scorer)
    if callable(scorer):
        chosen: Scorer = FunctionScorer(object_name(scorer), scorer)
    else:
        chosen = make_scorer(settings, _display(progress).say)
    target = None if out is None else Path(out)
    limit = settings.concurrency
    return run_sync(lambda: rescore(Path(source), chosen, target, concurrency=limit))


def compare(
    *evaluations: Evaluated | Sequence[Evaluated],
    names: Sequence[str] = (),
    measure: str = "pass@1",
) -> Comparison:
    """Compare evaluations on one panel pair by pair, task by task.

    Args:
        *evaluations: Two or more reports, evaluation files or run folders; a run counts as its
            evaluation after training, and a run alone is compared with itself before training. A
            list of them is one arm with several training seeds.
        names: What to call them; unset: the names of their models.
        measure: What is compared: ``pass@K``, ``pass^K``, ``best@K``, ``worst@K``, ``score`` or
            ``turns``.

    Returns:
        Paired differences with intervals over tasks (and seeds), p-values adjusted by Holm's
        method, and the tasks that flipped. Panels that differ are compared on their common tasks.

    Raises:
        ConfigError: There is nothing to compare, or the panels have no tasks in common.
    """
    if len(evaluations) == 1 and (folder := _run_of(evaluations[0])) is not None:
        files = [folder / "eval" / f"{name}.jsonl" for name in ("before", "after")]
        reports = [read_report(file) for file in files]
        return compare_reports(reports, names or ("before", "after"), measure=measure)
    arms = [
        report_of(each)
        if isinstance(each, str | Path | Report | TrainResult)
        else [report_of(one) for one in each]
        for each in evaluations
    ]
    return compare_reports(arms, names, measure=measure)


def _run_of(given: Any) -> Path | None:
    """The folder of a run."""
    if isinstance(given, TrainResult):
        return given.folder
    if isinstance(given, str | Path) and (Path(given) / "config.yaml").is_file():
        return Path(given)
    return None


def report_of(given: Evaluated) -> Report:
    """The report of an evaluation file, or of a run after training.

    Raises:
        ConfigError: There is none.
    """
    if isinstance(given, Report):
        return given
    if (folder := _run_of(given)) is not None:
        return read_report(folder / "eval" / "after.jsonl")
    return read_report(Path(cast("str | Path", given)))


def _display(progress: bool) -> Display:
    return Display(Console() if progress else None)
