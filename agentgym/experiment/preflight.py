"""Checks before a run starts: settings, world, panel, model."""

from __future__ import annotations

from agentgym.engines.factory import check_device
from agentgym.env.panel import panel_of
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.experiment.assemble import tokenizer_of
from agentgym.models.loading import check_model
from agentgym.rollout.chat_template import ChatTemplate
from agentgym.rollout.tool_calls import notation
from agentgym.settings import Experiment


def check(experiment: Experiment, *, trains: bool = False) -> None:
    """Find mistakes before anything is written: settings, environment, panel, model.

    Args:
        experiment: The settings.
        trains: Whether it is a training run, which a chat endpoint cannot serve.

    Raises:
        ConfigError: Naming what is wrong.
    """
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
    if experiment.engine_device is not None:
        check_device(experiment.engine, experiment.engine_device)
    bare = world(experiment.env, **experiment.env_args)
    wanted = experiment.panel
    panel_of(experiment.env, bare, wanted.split).head(wanted.tasks)
    bare.close()
    if experiment.model is not None and experiment.engine != "openai":
        settings = experiment.agent
        check_model(
            experiment.model,
            context=experiment.rollout.max_context_tokens,
            needs_template=settings.chat_template is None,
        )
        ChatTemplate(tokenizer_of(experiment.model, settings), settings.template_args)
    if experiment.agent.tool_notation is not None:
        notation(experiment.agent.tool_notation)
