"""Reads vLLM's answers: completions of both engines, and what a server reports about itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentgym.engines.entropy import entropy_at_least
from agentgym.engines.requests import finish_reason
from agentgym.errors import ConfigError
from agentgym.types import Completion, Sampling


def parse_completion(
    tokens: Sequence[int], rows: Sequence[Sequence[float]], sampling: Sampling, version: int
) -> Completion:
    """A completion from vLLM's output.

    Args:
        tokens: Sampled ids.
        rows: Per token its log-probability first; then only its entropy, or log-probabilities of
            the most likely tokens without the sampled one.
        sampling: Of the request.
        version: Of the policy.

    Raises:
        ConfigError: A log-probability is not finite, as after training has diverged.
    """
    if not all(row and float("-inf") < row[0] <= 1e-3 for row in rows):
        raise ConfigError(
            "the model's log-probabilities are not finite, its weights have diverged: lower the "
            "learning rate and continue from an earlier checkpoint"
        )
    ids = tuple(tokens)
    finish = finish_reason(ids, sampling)
    if sampling.temperature == 0.0:
        # vLLM reports the model's distribution, but greedy decoding is deterministic.
        return Completion(ids, (0.0,) * len(ids), (0.0,) * len(ids), version, finish)
    entropies = (
        row[1] if len(row) == 2 and row[1] >= 0.0 else entropy_at_least(row) for row in rows
    )
    return Completion(ids, tuple(row[0] for row in rows), tuple(entropies), version, finish)


class ServedModel(NamedTuple):
    """An entry of a server's list of models."""

    id: str
    root: str
    """Path or hub id it was loaded from."""
    context: int | None


def parse_models(answer: Any) -> list[ServedModel]:
    """The models of a server, from its answer to ``GET /v1/models``."""
    return [
        ServedModel(str(one["id"]), str(one.get("root") or one["id"]), one.get("max_model_len"))
        for one in answer["data"]
    ]


def same_model(ours: str, theirs: str) -> bool:
    """Whether two names denote one model: the server may mount the folder elsewhere.

    A folder that exists on this machine must be the same one: every run has a folder ``final``.
    """
    if ours == theirs:
        return True
    if Path(theirs).is_absolute() and Path(theirs).exists():
        return Path(ours).resolve() == Path(theirs).resolve()
    return Path(ours).name == Path(theirs).name


def top_logprobs_of_first_token(answer: Any) -> dict[str, float]:
    """The most likely tokens and their log-probabilities."""
    found: dict[str, float] = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    return found


class Part(NamedTuple):
    """A completion, or its first part."""

    completion: Completion
    interrupted: bool
    """Aborted by a weight update; the rest is sampled under the new weights."""


def parse_answer(answer: Any, *, sampling: Sampling, version: int) -> Part:
    """Parse the completion of an answer; raises a plain Python error on another form."""
    choice = answer["choices"][0]
    interrupted = choice["finish_reason"] == "abort" and bool(choice["token_ids"])
    if not interrupted and choice["finish_reason"] not in ("stop", "length"):
        raise ValueError(f"a completion ended by {choice['finish_reason']!r}")
    logprobs = choice["logprobs"]
    rows = [
        [logprob, *(value for token, value in likeliest.items() if token != name)]
        for name, logprob, likeliest in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        )
    ]
    named = [f"token_id:{token}" for token in choice["token_ids"]]
    if logprobs["tokens"] != named:
        raise ValueError(f"log-probabilities of {logprobs['tokens'][:9]} came with {named[:9]}")
    return Part(parse_completion(choice["token_ids"], rows, sampling, version), interrupted)
