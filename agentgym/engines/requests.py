"""What an engine refuses before it spends anything on it, and how it says why it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agentgym.errors import ConfigError
from agentgym.types import Completion, Sampling


class Room(NamedTuple):
    """What a model can read."""

    context: int
    """Longest prompt plus completion, in tokens."""
    vocabulary: int
    """Number of token ids."""


def check_request(prompt: Sequence[int], sampling: Sampling, room: Room) -> None:
    """Refuse what the model cannot read, and parameters that describe no distribution.

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
    """Refuse parameters that describe no distribution.

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


def finish_of(tokens: Sequence[int], sampling: Sampling) -> Literal["stop", "length"]:
    """Why a completion ended that only a stop token or its limit could end."""
    return "stop" if tokens and tokens[-1] in sampling.stop else "length"


def rest_of(
    prompt: Sequence[int], sampling: Sampling, parts: Sequence[Completion]
) -> tuple[list[int], Sampling]:
    """What is left to ask for after the beginnings of a completion, for the weights of today."""
    written = [token for part in parts for token in part.tokens]
    if not written:
        return list(prompt), sampling
    # The seed's own numbers were used for the beginning.
    seed = int(np.random.SeedSequence([sampling.seed, len(written)]).generate_state(1)[0])
    left = replace(sampling, seed=seed, max_tokens=sampling.max_tokens - len(written))
    return [*prompt, *written], left


def completion_of(
    tokens: Sequence[int],
    logprobs: Sequence[float],
    entropies: Sequence[float],
    versions: Sequence[int],
    finish: Literal["stop", "length"],
) -> Completion:
    """From columns with one entry per token, the version of the weights among them."""
    oldest = min(versions)
    mixed = tuple(versions) if max(versions) > oldest else ()
    columns = tuple(tokens), tuple(logprobs), tuple(entropies)
    return Completion(*columns, oldest, finish, mixed)


def joined(parts: Sequence[Completion]) -> Completion:
    """One completion of parts that follow each other, each of weights of its own.

    Examples:
        >>> begun = Completion((5,), (-0.1,), (0.2,), version=3)
        >>> whole = joined([begun, Completion((6,), (0.0,), (0.0,), version=4)])
        >>> whole.tokens, whole.version, whole.versions
        ((5, 6), 3, (3, 4))
    """
    tokens, logprobs, entropies, versions = (
        tuple(chain.from_iterable(getattr(part, name) for part in parts))
        for name in ("tokens", "logprobs", "entropies", "token_versions")
    )
    return completion_of(tokens, logprobs, entropies, versions, parts[-1].finish)


def check_weights(expected: Mapping[str, torch.Size], weights: Mapping[str, Tensor]) -> None:
    """Refuse a state dict before the first weight is copied. Unknown names are ignored.

    Raises:
        ConfigError: A weight is missing or has another shape.
    """
    missing = [name for name in expected if name not in weights]
    if missing:
        raise ConfigError(
            f"the new weights lack {missing[0]!r} (and {len(missing) - 1} more); pass the whole "
            f"state dict of a model of the same architecture"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ConfigError(
                f"the new weights are of another architecture: {name!r} must have shape "
                f"{list(shape)}, got {list(weights[name].shape)}"
            )
