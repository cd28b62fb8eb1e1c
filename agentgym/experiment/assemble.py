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
async def host_of(rollout: RolloutSettings) -> AsyncIterator[Executor]:
    """Where a configuration lets worlds live, for as long as it is used."""
    if not rollout.workers:
        yield ThreadExecutor(rollout.env_timeout, rollout.concurrency)
        return
    async with ProcessPool(workers=rollout.workers, deadline=rollout.env_timeout) as pool:
        yield pool


def form_of(speech: AgentSettings) -> ActionFormat:
    """The action format a configuration names."""
    forms: dict[str, ActionFormat] = {
        "tags": Tags(),
        "think": Tags(think=True),
        "json": JsonCall(),
        "plain": Plain(),
    }
    return forms[speech.action_format]


def engines_of(experiment: Experiment, *, alone: bool = True, served: str | None = None) -> Engines:
    """What makes the engine of an experiment; see ``Engines`` for ``alone`` and ``served``."""
    return Engines(
        experiment.engine,
        experiment.server,
        device=experiment.engine_device,
        bitwise=experiment.batch_invariant,
        alone=alone,
        served=served,
    )
