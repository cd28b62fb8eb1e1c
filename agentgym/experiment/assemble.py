"""From settings to parts: where environments run, action formats, engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentgym.engines.factory import Engines
from agentgym.env.executor import Executor, ThreadExecutor
from agentgym.env.process_pool import ProcessPool
from agentgym.rollout.action_formats import ActionFormat, JsonCall, Plain, Tags
from agentgym.settings import AgentSettings, Experiment, RolloutSettings


@asynccontextmanager
async def executor_of(rollout: RolloutSettings) -> AsyncIterator[Executor]:
    """Executor of the environments, closed on exit."""
    if not rollout.workers:
        yield ThreadExecutor(rollout.env_timeout, rollout.concurrency)
        return
    async with ProcessPool(workers=rollout.workers, deadline=rollout.env_timeout) as pool:
        yield pool


def action_format_of(settings: AgentSettings) -> ActionFormat:
    """The action format that the settings name."""
    forms: dict[str, ActionFormat] = {
        "tags": Tags(),
        "think": Tags(think=True),
        "json": JsonCall(),
        "plain": Plain(),
    }
    return forms[settings.action_format]


def engines_of(experiment: Experiment, *, alone: bool = True, served: str | None = None) -> Engines:
    """Engine factory of an experiment; see ``Engines`` for ``alone`` and ``served``."""
    return Engines(
        experiment.engine,
        experiment.server,
        device=experiment.engine_device,
        bitwise=experiment.batch_invariant,
        alone=alone,
        served=served,
    )
