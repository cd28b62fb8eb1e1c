"""Mismatch between the engine that samples and the trainer that learns.

They are two programs: their log-probabilities of one token differ by rounding, or by more when
something is wrong. Both are columns of the batch: ``logprob_sampled`` is the engine's, ``logprob``
the trainer's.
"""

from __future__ import annotations

import torch

from agentgym.batch.batch import Batch
from agentgym.credit.transforms import Transform, mean_of_episode, stateless
from agentgym.errors import TrainingError


def mismatch(batch: Batch) -> float:
    """Difference between engine and trainer in nats per token: the median over episodes.

    The value of an episode is its mean absolute difference. The (lower) median ignores episodes
    that were sampled at another temperature on purpose, as long as they are no majority. 0 without
    tokens.
    """
    gap = (batch.logprob - batch.logprob_sampled).abs()
    has_tokens = torch.bincount(batch.episode_of_token[batch.mask], minlength=len(batch.group)) > 0
    means = mean_of_episode(gap, batch)[has_tokens]
    return float(means.median()) if len(means) else 0.0


def check_mismatch(batch: Batch, limit: float) -> None:
    """Refuse a batch in which engine and trainer are more than ``limit`` nats per token apart.

    Raises:
        TrainingError: They are, or a log-probability is NaN.
    """
    found = mismatch(batch)
    if not found <= limit:
        raise TrainingError(
            f"engine and trainer differ by {found:.3g} nats per token, expected at most "
            f"{limit:g}: check that both have the same weights, temperature and dtype, and "
            f"that neither top-p nor top-k is in force"
        )


def stop_on_mismatch(limit: float) -> Transform:
    """``check_mismatch`` as a transform of credit, with a limit of its own.

    Raises:
        TrainingError: When a batch is credited, before an update.
    """

    def apply(batch: Batch) -> Batch:
        check_mismatch(batch, limit)
        return batch

    return stateless(apply)
