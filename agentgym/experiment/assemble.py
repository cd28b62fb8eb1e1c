"""From settings to parts: where environments run, action formats, engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentgym.engines.factory import Engines
from agentgym.env.executor import Host, Threads
from agentgym.env.process_pool import Pool
from agentgym.rollout.action_formats import ActionFormat, JsonCall, Plain, Tags
from agentgym.settings import Experiment, Rollout, Speech


@asynccontextmanager
async def host_of(rollout: Rollout) -> AsyncIterator[Host]:
    """Where a configuration lets worlds live, for as long as it is used."""
    if not rollout.workers:
        yield Threads(rollout.deadline, rollout.concurrency)
        return
    async with Pool(workers=rollout.workers, deadline=rollout.deadline) as pool:
        yield pool


def form_of(speech: Speech) -> ActionFormat:
    """The action format a configuration names."""
    forms: dict[str, ActionFormat] = {
        "tags": Tags(),
        "think": Tags(think=True),
        "json": JsonCall(),
        "plain": Plain(),
    }
    return forms[speech.form]


def engines_of(experiment: Experiment, *, alone: bool = True, served: str | None = None) -> Engines:
    """What makes the engine of an experiment; see ``Engines`` for ``alone`` and ``served``."""
    return Engines(
        experiment.engine,
        experiment.server,
        device=experiment.engine_device,
        bitwise=experiment.engine_bitwise,
        alone=alone,
        served=served,
    )
