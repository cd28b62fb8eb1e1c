"""From settings to a scorer."""

from __future__ import annotations

import os
from collections.abc import Callable

from agentgym.errors import ConfigError, MissingExtra
from agentgym.scoring.scorer import Scorer, load_scorer
from agentgym.settings import ScoringSettings


def make_scorer(settings: ScoringSettings, report: Callable[[str], None] | None = None) -> Scorer:
    """The scorer that the settings choose.

    Args:
        settings: A function, or a judge.
        report: Called with one line when a judge keeps requests waiting; default: silent.

    Raises:
        ConfigError: There is no such function, rubric or address, or none is named.
        MissingExtra: A judge needs httpx.
    """
    if settings.scorer is not None:
        return load_scorer(settings.scorer)
    if settings.judge is None or settings.rubric is None or settings.model is None:
        raise ConfigError(
            "no scorer: give `--with module:function`, or `--judge URL --model NAME --rubric FILE`"
        )
    try:
        from agentgym.engines.endpoint import Endpoint, RetryPolicy
        from agentgym.scoring.judge import Judge
    except ImportError as problem:
        raise MissingExtra("a judge needs httpx: pip install 'agentic-gym[http]'") from problem
    from agentgym.scoring.rubric import load_rubric

    endpoint = Endpoint(
        settings.judge,
        key=os.environ.get("OPENAI_API_KEY"),
        retry=RetryPolicy(deadline=settings.deadline),
        report=report,
    )
    return Judge(
        load_rubric(settings.rubric),
        endpoint,
        settings.model,
        concurrency=settings.concurrency,
        max_tokens=settings.max_tokens,
    )
