"""A simulated user of the settings, around an environment."""

from __future__ import annotations

import os
from functools import cache

from agentgym.env.base import TextEnv
from agentgym.settings import UserSettings
from agentgym.tools.speakers import EndpointSpeaker, Speaker
from agentgym.tools.user import SimulatedUser, WithUser

KEY = "AGENTGYM_USER_KEY"
"""Environment variable with the key of the user's endpoint."""
CONTEXT = 4096
"""Tokens of a conversation with a model that runs here."""


def with_user(world: TextEnv, settings: UserSettings) -> TextEnv:
    """The environment with the user of the settings.

    Raises:
        ConfigError: There is no such model, or a partner is set for actions that are text.
    """
    user = SimulatedUser(speaker_of(settings), max_turns=settings.max_turns, end=settings.end)
    return WithUser(world, user, partner=settings.partner)


@cache
def speaker_of(settings: UserSettings) -> Speaker:
    """Who plays the user; one for all environments of a process.

    Raises:
        ConfigError: There is no such model.
    """
    assert settings.model is not None, "checked by the caller"
    if settings.endpoint is not None:
        return EndpointSpeaker(
            f"{settings.endpoint.rstrip('/').removesuffix('/v1')}/v1",
            settings.model,
            key=os.environ.get(KEY, ""),
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
        )
    from agentgym.engines.local.engine import LocalEngine
    from agentgym.models.loading import load_model, load_tokenizer
    from agentgym.rollout.speaker import EngineSpeaker
    from agentgym.types import Sampling

    engine = LocalEngine(load_model(settings.model), slots=16, context=CONTEXT)
    sampling = Sampling(temperature=settings.temperature, max_tokens=settings.max_tokens)
    return EngineSpeaker(engine, load_tokenizer(settings.model), sampling=sampling)
