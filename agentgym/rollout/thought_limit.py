"""Sampling with a limit on thoughts: one that runs too long is closed for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentgym.engines import Engine
from agentgym.rollout.agent import Agent
from agentgym.types import Completion, Sampling
from agentgym.utils.seeds import derive


async def sample_within_thought_limit(
    engine: Engine, agent: Agent, context: list[int], sampling: Sampling, most: int | None
) -> tuple[Completion, tuple[int, int]]:
    """A completion, and the range of its tokens that were inserted to end a thought.

    Args:
        engine: What samples.
        agent: Knows where thoughts end, and what ends one.
        context: Prompt tokens.
        sampling: Of the whole completion.
        most: Longest thought in tokens; None: no limit.
    """
    if most is None or most >= sampling.max_tokens:
        return await engine.generate(context, sampling), (0, 0)
    first = await engine.generate(context, replace(sampling, max_tokens=most))
    if first.finish == "stop":
        return first, (0, 0)
    inside = agent.in_thought(first, context)
    end = agent.thought_end if inside else ()
    left = sampling.max_tokens - most - len(end)
    if left < 1:
        return first, (0, 0)
    extended = [*context, *first.tokens, *end]
    seed = derive(sampling.seed, "after the thought")
    rest = await engine.generate(extended, replace(sampling, max_tokens=left, seed=seed))
    return _joined(first, end, rest), (most, most + len(end))


def _joined(first: Completion, inserted: Sequence[int], rest: Completion) -> Completion:
    """One completion of two, with tokens between them that were not sampled."""
    zeros = (0.0,) * len(inserted)
    versions = first.token_versions + (rest.version,) * len(inserted) + rest.token_versions
    return Completion(
        (*first.tokens, *inserted, *rest.tokens),
        (*first.logprobs, *zeros, *rest.logprobs),
        (*first.entropies, *zeros, *rest.entropies),
        min(first.version, rest.version),
        rest.finish,
        versions if len(set(versions)) > 1 else (),
    )
