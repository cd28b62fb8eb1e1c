"""From settings to parts: where environments run, action formats, engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agentgym.engines.factory import EngineFactory
from agentgym.env.executor import Executor, ThreadExecutor
from agentgym.env.process_pool import ProcessPool
from agentgym.errors import ConfigError
from agentgym.models.loading import load_tokenizer
from agentgym.models.protocols import Tokenizer
from agentgym.programs.server import ProgramServer
from agentgym.rollout.action_formats import (
    ActionFormat,
    JsonCall,
    NativeCalls,
    Plain,
    ReAct,
    Tags,
)
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.chat_template import PLAIN, ChatTemplate
from agentgym.rollout.prompts import LAYOUTS
from agentgym.settings import ActionFormatName, AgentSettings, Experiment, RolloutSettings


@asynccontextmanager
async def executor_of(rollout: RolloutSettings) -> AsyncIterator[Executor]:
    """Executor of the environments, closed on exit."""
    if not rollout.workers:
        yield ThreadExecutor(rollout.env_timeout, rollout.concurrency)
        return
    async with ProcessPool(workers=rollout.workers, step_timeout=rollout.env_timeout) as pool:
        yield pool


@asynccontextmanager
async def program_server_of(experiment: Experiment) -> AsyncIterator[ProgramServer | None]:
    """The endpoint of the agent program, closed on exit; None where no program plays."""
    if experiment.agent_program is None:
        yield None
        return
    async with ProgramServer() as server:
        yield server


def agent_of(
    settings: AgentSettings,
    tokenizer: Tokenizer,
    action_format: ActionFormat,
    stop_tokens: Sequence[int] = (),
) -> ChatAgent:
    """The agent of the settings, without examples.

    Args:
        settings: Of the agent.
        tokenizer: With a chat template.
        action_format: How actions are written.
        stop_tokens: Further token ids that end a completion.

    Raises:
        ConfigError: The chat template fails, or there is no such notation of tool calls.
    """
    return ChatAgent(
        tokenizer,
        action_format=action_format,
        system_prompt=settings.system_prompt,
        window=settings.window,
        history=settings.history,
        template_args=settings.template_args,
        tool_notation=settings.tool_notation,
        layout=LAYOUTS[settings.prompt],
        stop_tokens=stop_tokens,
    )


def action_format_of(name: ActionFormatName) -> ActionFormat:
    """The action format of a name."""
    forms: dict[str, ActionFormat] = {
        "tags": Tags(),
        "think": Tags(think=True),
        "json": JsonCall(),
        "native": NativeCalls(),
        "react": ReAct(),
        "plain": Plain(),
    }
    return forms[name]


def chosen_action_format(
    settings: AgentSettings, tokenizer: Tokenizer | None, *, calls_only: bool
) -> ActionFormatName:
    """The action format as set, else as layout, environment and chat template fix it.

    Args:
        settings: Of the agent.
        tokenizer: With a chat template; None where there is no model.
        calls_only: Every action of the environment is a call of a tool.
    """
    fixed = settings.action_format or LAYOUTS[settings.prompt].action_format
    if fixed is not None:
        return fixed
    described = (
        calls_only
        and tokenizer is not None
        and ChatTemplate(tokenizer, settings.template_args).has_tools
    )
    return "native" if described else "tags"


def tokenizer_of(path: str | Path, settings: AgentSettings) -> Any:
    """The tokenizer beside a model, with the chat template of the settings.

    Raises:
        ConfigError: There is no tokenizer, or no such template file.
    """
    tokenizer, wanted = load_tokenizer(path), settings.chat_template
    if wanted == "plain":
        tokenizer.chat_template = PLAIN
    elif wanted is not None:
        try:
            tokenizer.chat_template = Path(wanted).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ConfigError(
                f"agent.chat_template is {wanted!r}, expected `plain` or a Jinja file ({problem})"
            ) from problem
    return tokenizer


def engines_of(
    experiment: Experiment,
    *,
    cuda_graphs: bool = True,
    server_model: str | None = None,
    report: Callable[[str], None] | None = None,
) -> EngineFactory:
    """The engine factory of an experiment; for the keywords see ``EngineFactory``."""
    return EngineFactory(
        experiment.engine,
        experiment.server,
        device=experiment.engine_device,
        precision=experiment.optimizer.precision,
        batch_invariant=experiment.batch_invariant,
        cuda_graphs=cuda_graphs,
        server_model=server_model,
        endpoint=experiment.endpoint,
        sync_adapters=experiment.lora.sync == "adapters",
        report=report,
    )
