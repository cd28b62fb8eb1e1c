"""Checks before a run starts: settings, environment, panel, model."""

from __future__ import annotations

from agentgym.algorithm import Algorithm
from agentgym.engines.factory import check_device
from agentgym.errors import ConfigError
from agentgym.experiment.assemble import tokenizer_of
from agentgym.experiment.sources import Objects, check_objects, is_policy, source_of
from agentgym.models.loading import check_model
from agentgym.programs.player import CANNOT_BRANCH
from agentgym.programs.process import load_program
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.collect import branches
from agentgym.rollout.policies import load_policy
from agentgym.rollout.tool_calls import notation
from agentgym.scoring.make import make_scorer
from agentgym.settings import Experiment
from agentgym.tracking.start import check_trackers
from agentgym.utils import zstd_lines


def check(
    experiment: Experiment,
    *,
    trains: bool = False,
    objects: Objects | None = None,
    algorithm: Algorithm | None = None,
) -> None:
    """Find mistakes before anything is written: settings, environment, panel, model.

    Args:
        experiment: The settings.
        trains: Whether it is a training run, which a chat endpoint cannot serve.
        objects: What the settings cannot name.
        algorithm: Of a training run.

    Raises:
        ConfigError: Naming what is wrong.
        MissingExtra: A tracker is not installed.
    """
    check_objects(experiment, objects or Objects())
    check_trackers(experiment.track)
    if experiment.agent_program is not None:
        _check_program(experiment, objects or Objects(), algorithm)
    if trains and is_policy(experiment.model, experiment):
        raise ConfigError(
            f"{experiment.model} is a policy without weights, which cannot be trained"
        )
    if trains and experiment.engine == "openai":
        raise ConfigError(
            "a chat endpoint cannot be trained, only evaluated: `agentgym eval MODEL --engine "
            "openai`, or train with `--engine local`, `vllm` or `vllm-server`"
        )
    if trains and experiment.rollout.temperature == 0:
        raise ConfigError(
            "rollout.temperature is 0, expected more for training: for greedy evaluation alone set "
            "`--panel.temperature 0`"
        )
    if trains and experiment.server is not None and experiment.model is None:
        raise ConfigError(
            f"the server at {experiment.server} serves a model of its own: name it with `--model`, "
            f"or leave `--server` out and one is started for the model made here"
        )
    if trains and experiment.scoring.given:
        make_scorer(experiment.scoring)
    if experiment.compress_episodes:
        zstd_lines.library()
    if experiment.engine_device is not None:
        check_device(experiment.engine, experiment.engine_device)
    source = source_of(experiment, objects)
    if experiment.rollout.workers:
        source.check_workers()
    bare = source.bare()
    for split in dict.fromkeys(("train", experiment.panel.split) if trains else ()):
        if not bare.tasks(split):
            raise ConfigError(f"{source.id} has no tasks in split {split!r}")
    source.panel_of(bare, experiment.panel.split).head(experiment.panel.tasks)
    bare.close()
    _check_model(experiment, objects or Objects())
    if experiment.agent.tool_notation is not None:
        notation(experiment.agent.tool_notation)


def _check_program(experiment: Experiment, objects: Objects, algorithm: Algorithm | None) -> None:
    if is_policy(experiment.model, experiment):
        raise ConfigError(
            f"{experiment.model} is a policy without a language model, which an agent program "
            f"cannot call: give a model, or leave `--agent-program` out"
        )
    if algorithm is not None and branches(algorithm.collect):
        raise ConfigError(CANNOT_BRANCH)
    load_program(objects.agent_program or str(experiment.agent_program))


def _check_model(experiment: Experiment, objects: Objects) -> None:
    if objects.model is not None and not hasattr(objects.model, "generate"):
        raise ConfigError(
            f"the model is a {type(objects.model).__name__}, expected a Hugging Face causal "
            f"language model, its folder or hub id"
        )
    if experiment.model is None or experiment.engine == "openai":
        return
    if is_policy(experiment.model, experiment):
        load_policy(str(experiment.model))
        return
    settings = experiment.agent
    if objects.model is None:
        check_model(
            experiment.model,
            context=experiment.rollout.max_context_tokens,
            needs_template=settings.chat_template is None,
        )
    tokenizer = objects.tokenizer or tokenizer_of(experiment.model, settings)
    ChatTemplate(tokenizer, settings.template_args)
