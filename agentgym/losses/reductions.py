"""What a method asks of the whole distribution over the vocabulary, besides one token's entropy.

The distribution is at hand only while the network runs. A piece of credit that carries a reduction
finds its value in a private column, taken before the update and without a gradient; a loss that
carries one finds it in ``Outputs.extra``, taken now and with a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Reduction(NamedTuple):
    """``apply(logp, tokens)`` gives one number per token: (A, V) log-probabilities in, (A,) out."""

    name: str
    """Where the value is found: ``paper/name``."""
    apply: Callable[[Float[Tensor, "A V"], Int[Tensor, " A"]], Float[Tensor, " A"]]


def distinct(reductions: Iterable[Reduction]) -> tuple[Reduction, ...]:
    """One of each name, in the order of their first mention."""
    return tuple({reduction.name: reduction for reduction in reductions}.values())


def tempered_logprob(name: str, temperature: float) -> Reduction:
    """Log-probability of the token had the distribution been drawn from at ``temperature``."""

    def apply(logp: Tensor, tokens: Tensor) -> Tensor:
        warm = (logp / temperature).log_softmax(-1)
        return warm.gather(-1, tokens[:, None]).squeeze(-1)

    return Reduction(name, apply)


def expected_tilt(name: str) -> Reduction:
    """``sum_i p_i^2 (H + ln p_i)``: the mean of ``p (H + ln p)`` over the distribution itself."""

    def apply(logp: Tensor, tokens: Tensor) -> Tensor:
        p = logp.exp()
        entropy = -(p * logp).sum(-1, keepdim=True)
        return (p.square() * (entropy + logp)).sum(-1)

    return Reduction(name, apply)


def nucleus_entropy(name: str, mass: float, *, inclusive: bool = True) -> Reduction:
    """Entropy of the most probable tokens that together have ``mass``, rescaled to sum to 1.

    Args:
        name: Where it is found.
        mass: Probability, in (0, 1].
        inclusive: The token that reaches ``mass`` belongs to them; without it, the set is empty
            and the entropy 0 where one token has that much.
    """

    def apply(logp: Tensor, tokens: Tensor) -> Tensor:
        ordered = logp.sort(-1, descending=True).values
        p = ordered.exp()
        total = p.detach().cumsum(-1)
        before = total - p.detach() if inclusive else total
        inside = before < mass
        kept = torch.where(inside, p, torch.zeros_like(p))
        share = kept / kept.sum(-1, keepdim=True).clamp(min=1e-12)
        return -torch.where(inside, share * (share + 1e-12).log(), torch.zeros_like(p)).sum(-1)

    return Reduction(name, apply)
