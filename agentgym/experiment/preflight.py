"""Checks before a run starts: settings, environment, panel, model."""

from __future__ import annotations

from agentgym.algorithm import Algorithm
from agentgym.engines.factory import check_device
from agentgym.errors import ConfigError
from agentgym.experiment.assemble import (
    action_format_of,
    agent_of,
    chosen_action_format,
    tokenizer_of,
)
from agentgym.experiment.sources import Objects, check_objects, is_policy, source_of
from agentgym.models.loading import check_model
from agentgym.models.protocols import Tokenizer
from agentgym.programs.player import CANNOT_BRANCH
from agentgym.programs.process import load_program
from agentgym.rollout.collect import branches
from agentgym.rollout.policies import load_policy
from agentgym.rollout.prompts import AgentInput
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
    manual, calls_only = bare.manual(), bare.calls_only
    bare.close()
    tokenizer = _check_model(experiment, objects or Objects())
    if tokenizer is not None:
        _check_prompt(experiment, tokenizer, manual, calls_only=calls_only)
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


def _check_model(experiment: Experiment, objects: Objects) -> Tokenizer | None:
    """The tokenizer, where the model has one of its own."""
    if objects.model is not None and not hasattr(objects.model, "generate"):
        raise ConfigError(
            f"the model is a {type(objects.model).__name__}, expected a Hugging Face causal "
            f"language model, its folder or hub id"
        )
    if experiment.model is None or experiment.engine == "openai":
        return None
    if is_policy(experiment.model, experiment):
        load_policy(str(experiment.model))
        return None
    settings = experiment.agent
    if objects.model is None:
        check_model(
            experiment.model,
            context=experiment.rollout.max_context_tokens,
            needs_template=settings.chat_template is None,
        )
    found: Tokenizer = objects.tokenizer or tokenizer_of(experiment.model, settings)
    return found


def _check_prompt(
    experiment: Experiment, tokenizer: Tokenizer, manual: str, *, calls_only: bool
) -> None:
    """Refuse a context that does not even hold what every first prompt begins with."""
    settings, rollout = experiment.agent, experiment.rollout
    form = chosen_action_format(settings, tokenizer, calls_only=calls_only)
    agent = agent_of(settings, tokenizer, action_format_of(form))
    tokens = len(agent.prompt(AgentInput("", "", "", manual=manual), ()).tokens)
    if tokens + rollout.max_completion_tokens > rollout.max_context_tokens:
        raise ConfigError(
            f"the manual and instructions of {experiment.env} have {tokens} tokens, which with "
            f"{rollout.max_completion_tokens} for a completion exceed the context of "
            f"{rollout.max_context_tokens}: raise `--rollout.max-context-tokens`, or take a model "
            f"with a longer context"
        )
