"""The engine that samples and the trainer that learns are two programs: what lies between them.

Their log-probabilities of one token differ by rounding, or by more when something is wrong. Both
are columns of the batch: ``logprob_sampled`` is the engine's, ``logprob`` the trainer's.
"""

from __future__ import annotations

import torch

from agentgym.batch.batch import Batch
from agentgym.credit.transforms import Transform, mean_of_episode, stateless
from agentgym.errors import TrainingError


def drift(batch: Batch) -> float:
    """How far engine and trainer are apart, in nats per token: the median over episodes.

    Of an episode it is the mean of the absolute difference. The median (the lower one) passes over
    episodes that were drawn at another temperature on purpose, as long as they are no majority.
    0 without tokens.
    """
    gap = (batch.logprob - batch.logprob_sampled).abs()
    spoke = torch.bincount(batch.episode_of_token[batch.mask], minlength=len(batch.group)) > 0
    means = mean_of_episode(gap, batch)[spoke]
    return float(means.median()) if len(means) else 0.0


def check_drift(batch: Batch, limit: float) -> None:
    """Refuse a batch in which engine and trainer are more than ``limit`` nats per token apart.

    Raises:
        TrainingError: They are, or one of them gave no number.
    """
    found = drift(batch)
    if not found <= limit:
        raise TrainingError(
            f"engine and trainer differ by {found:.3g} nats per token, expected at most "
            f"{limit:g}: check that both have the same weights, temperature and dtype, and "
            f"that neither top-p nor top-k is in force"
        )


def stop_on_drift(limit: float) -> Transform:
    """The same as a piece of credit, with a limit of its own.

    Raises:
        TrainingError: When a batch is credited, before anything is learned from it.
    """

    def apply(batch: Batch) -> Batch:
        check_drift(batch, limit)
        return batch

    return stateless(apply)
