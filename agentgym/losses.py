"""What to minimise: pure functions from the policy's fresh outputs to one number per token.

No loss reduces, and none looks at another row: what a token must know about the rest of the batch
is a column, written by credit before the batch is split. So the split never changes the gradient.
All tensors are (P,), one entry per position of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from agentgym.batch import Batch

Schedule = Callable[[int], float]
"""Step number to coefficient."""


class Outputs(NamedTuple):
    """What the policy says now about the tokens of a batch; 0 off the mask."""

    logprob: Float[Tensor, " P"]
    """In nats."""
    entropy: Float[Tensor, " P"]
    """In nats, over the whole vocabulary."""


class Loss(NamedTuple):
    """``apply(outputs, batch, step)`` gives a (P,) tensor to be minimised."""

    apply: Callable[[Outputs, Batch, int], Float[Tensor, " P"]]
    reads: frozenset[str] = frozenset()
    """Private columns it needs."""


def add(*losses: Loss) -> Loss:
    """The sum of losses."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        first, *rest = (loss.apply(outputs, batch, step) for loss in losses)
        return sum(rest, start=first)

    return Loss(apply, frozenset().union(*(loss.reads for loss in losses)))


def weigh(coefficient: float | Schedule, loss: Loss) -> Loss:
    """A loss times a number, or times a schedule of the step."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        scale = coefficient(step) if callable(coefficient) else coefficient
        return scale * loss.apply(outputs, batch, step)

    return Loss(apply, loss.reads)


def policy_gradient(low: float = 0.2, high: float | None = None) -> Loss:
    """PPO's clipped surrogate per token, eq. 7 of Schulman et al. 2017 (arXiv:1707.06347).

    Args:
        low: The ratio may fall to ``1 - low`` before its gradient stops.
        high: And rise to ``1 + high``; equal to ``low`` unless given ("clip-higher", Yu et al.
            2025, arXiv:2503.14476, section 3.1).
    """
    upper = low if high is None else high

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        ratio = (outputs.logprob - batch.logprob).exp()
        clipped = ratio.clamp(1 - low, 1 + upper)
        return -(ratio * batch.advantage).minimum(clipped * batch.advantage)

    return Loss(apply)


def negative_log_likelihood() -> Loss:
    """Minus the log-probability of the token: imitation of whatever the batch holds."""
    return Loss(lambda outputs, batch, step: -outputs.logprob)


def entropy_bonus() -> Loss:
    """Minus the token entropy, so that minimising it explores."""
    return Loss(lambda outputs, batch, step: -outputs.entropy)
