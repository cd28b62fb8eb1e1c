"""Checks of requests and weights, and how completions are assembled from parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch

from agentgym.errors import ConfigError
from agentgym.types import Completion, Sampling


class ModelLimits(NamedTuple):
    """Limits of what a model accepts."""

    context: int
    """Longest prompt plus completion, in tokens."""
    vocabulary: int
    """Number of token ids."""


def check_request(prompt: Sequence[int], sampling: Sampling, room: ModelLimits) -> None:
    """Reject prompts that the model cannot read and invalid sampling parameters.

    Raises:
        ConfigError: The prompt is empty, leaves no room for ``max_tokens``, or holds an id
            outside the vocabulary; or a sampling parameter is out of range.
    """
    check_sampling(sampling)
    left = room.context - sampling.max_tokens
    if not 0 < len(prompt) <= left:
        raise ConfigError(
            f"a prompt must have 1 to {left} tokens, got {len(prompt)}: the engine's context "
            f"is {room.context} and max_tokens is {sampling.max_tokens}"
        )
    if min(prompt) < 0 or max(prompt) >= room.vocabulary:
        raise ConfigError(
            f"token ids must be in [0, {room.vocabulary}), got {min(prompt)} to {max(prompt)}; do "
            f"the tokenizer and the model belong together?"
        )


def check_sampling(sampling: Sampling) -> None:
    """Reject sampling parameters outside their range.

    Raises:
        ConfigError: A field is out of its range; the message names it.
    """
    if not 0.0 <= sampling.temperature < float("inf"):
        raise ConfigError(f"temperature must be finite and >= 0, got {sampling.temperature}")
    if not 0.0 < sampling.top_p <= 1.0:
        raise ConfigError(f"top_p must be in (0, 1], got {sampling.top_p}")
    if sampling.top_k < 0:
        raise ConfigError(f"top_k must be >= 0 (0 keeps every token), got {sampling.top_k}")
    if sampling.max_tokens < 1:
        raise ConfigError(f"max_tokens must be >= 1, got {sampling.max_tokens}")
    if sampling.seed < 0:
        raise ConfigError(f"seed must be >= 0, got {sampling.seed}")


def finish_reason(tokens: Sequence[int], sampling: Sampling) -> Literal["stop", "length"]:
    """Why a completion ended: a stop token, or the limit on its length."""
    return "stop" if tokens and tokens[-1] in sampling.stop else "length"


def remaining_request(
    prompt: Sequence[int], sampling: Sampling, parts: Sequence[Completion]
) -> tuple[list[int], Sampling]:
    """The request for the rest of a completion, of which ``parts`` were sampled before.

    Used after a weight update in the middle of a completion.

    Returns:
        The prompt with the sampled tokens appended, and the sampling with a fresh seed and the
        remaining number of tokens.
    """
    written = [token for part in parts for token in part.tokens]
    if not written:
        return list(prompt), sampling
    # The random numbers of the seed itself were used for the first part.
    seed = int(np.random.SeedSequence([sampling.seed, len(written)]).generate_state(1)[0])
    left = replace(sampling, seed=seed, max_tokens=sampling.max_tokens - len(written))
    return [*prompt, *written], left


def make_completion(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    entropies: Sequence[float],
    versions: Sequence[int],
    finish: Literal["stop", "length"],
) -> Completion:
    """A completion from columns with one entry per token; versions are of the weights."""
    oldest = min(versions)
    mixed = tuple(versions) if max(versions) > oldest else ()
    columns = tuple(tokens), tuple(logprobs), tuple(entropies)
    return Completion(*columns, oldest, finish, mixed)


def join_completions(parts: Sequence[Completion]) -> Completion:
    """Concatenate parts of one completion, each sampled by one version of the weights.

    Examples:
        >>> first = Completion((5,), (-0.1,), (0.2,), version=3)
        >>> whole = join_completions([first, Completion((6,), (0.0,), (0.0,), version=4)])
        >>> whole.tokens, whole.version, whole.versions
        ((5, 6), 3, (3, 4))
    """
    tokens, logprobs, entropies, versions = (
        tuple(chain.from_iterable(getattr(part, name) for part in parts))
        for name in ("tokens", "logprobs", "entropies", "token_versions")
    )
    return make_completion(tokens, logprobs, entropies, versions, parts[-1].finish)


def check_shapes(expected: Mapping[str, torch.Size], given: Mapping[str, torch.Size]) -> None:
    """Reject weights by their shapes, before the first weight is copied. Unknown names are ignored.

    Raises:
        ConfigError: A weight is missing or has another shape.
    """
    missing = [name for name in expected if name not in given]
    if missing:
        raise ConfigError(
            f"the new weights lack {missing[0]!r} (and {len(missing) - 1} more); pass the whole "
            f"state dict of a model of the same architecture"
        )
    for name, shape in expected.items():
        if given[name] != shape:
            raise ConfigError(
                f"the new weights are of another architecture: {name!r} must have shape "
                f"{list(shape)}, got {list(given[name])}"
            )
