"""What to minimise: pure functions from the policy's fresh outputs to one number per token.

No loss reduces, and none looks at another row: what a token must know about the rest of the batch
is a column, written by credit before the batch is split. So the split never changes the gradient.
All tensors are (P,), one entry per position of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import REFERENCE, VALUE, Batch
from agentgym.losses.reductions import Reduction, distinct

Schedule = Callable[[int], float]
"""Step number to coefficient."""


class Outputs(NamedTuple):
    """What the policy says now about the tokens of a batch; 0 off the mask."""

    logprob: Float[Tensor, " P"]
    """In nats."""
    entropy: Float[Tensor, " P"]
    """In nats, over the whole vocabulary."""
    value: Float[Tensor, " P"] | None = None
    """The critic's, before each token, in units of reward; None without a critic."""
    extra: Mapping[str, Tensor] = MappingProxyType({})
    """What the loss asked of the vocabulary, each (P,), by the name of its reduction."""


class Loss(NamedTuple):
    """``apply(outputs, batch, step)`` gives a (P,) tensor to be minimised."""

    apply: Callable[[Outputs, Batch, int], Float[Tensor, " P"]]
    reads: frozenset[str] = frozenset()
    """Private columns it needs."""
    weight: str = "weight"
    """Column that says how much each token counts."""
    plus: tuple[Loss, ...] = ()
    """Further terms, each under a weight column of its own."""
    reductions: tuple[Reduction, ...] = ()
    """What it asks of the vocabulary; found in ``Outputs.extra``."""
    name: str = "loss"
    """What it is called where it is measured apart."""
    parts: tuple[Loss, ...] = ()
    """What a sum under one weight column was made of."""

    def terms(self) -> Iterator[Loss]:
        """This loss and what is added to it, each without the others."""
        yield self._replace(plus=())
        for other in self.plus:
            yield from other.terms()

    def apart(self) -> Iterator[Loss]:
        """What was added and weighed, each without the others."""
        for term in self.terms():
            yield from term.parts or (term,)

    def asks(self) -> tuple[Reduction, ...]:
        """What all its terms ask of the vocabulary."""
        return distinct(r for term in self.terms() for r in term.reductions)


def add(*losses: Loss) -> Loss:
    """The sum of losses; those under one weight column become one term."""
    by_weight: dict[str, list[Loss]] = {}
    for loss in losses:
        for term in loss.terms():
            by_weight.setdefault(term.weight, []).append(term)
    first, *others = (_sum(terms) for terms in by_weight.values())
    return first._replace(plus=tuple(others))


def _sum(terms: list[Loss]) -> Loss:
    if len(terms) == 1:
        return terms[0]

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        first, *rest = (term.apply(outputs, batch, step) for term in terms)
        return sum(rest, start=first)

    return Loss(
        apply,
        frozenset().union(*(term.reads for term in terms)),
        terms[0].weight,
        reductions=distinct(r for term in terms for r in term.reductions),
        parts=tuple(part for term in terms for part in (term.parts or (term,))),
    )


def weigh(coefficient: float | Schedule, loss: Loss) -> Loss:
    """A loss times a number, or times a schedule of the step."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        scale = coefficient(step) if callable(coefficient) else coefficient
        return scale * loss.apply(outputs, batch, step)

    return loss._replace(
        apply=apply,
        plus=tuple(weigh(coefficient, term) for term in loss.plus),
        parts=tuple(weigh(coefficient, part) for part in loss.parts),
    )


def weighed_by(column: str, loss: Loss) -> Loss:
    """A loss of one term under another weight column, such as ``agentgym.credit.weights.TURNS``."""
    parts = tuple(weighed_by(column, part) for part in loss.parts)
    return loss._replace(weight=column, reads=loss.reads | {column}, parts=parts)


def times(column: str, loss: Loss) -> Loss:
    """A loss of one term times a private column, token by token; the weights stay."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return loss.apply(outputs, batch, step) * batch.extra[column]

    parts = tuple(times(column, part) for part in loss.parts)
    return loss._replace(apply=apply, reads=loss.reads | {column}, parts=parts)


def crediting(column: str, loss: Loss) -> Loss:
    """A loss of one term with a private column in the place of the advantage."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return loss.apply(outputs, batch.with_(advantage=batch.extra[column]), step)

    parts = tuple(crediting(column, part) for part in loss.parts)
    return loss._replace(apply=apply, reads=loss.reads | {column}, parts=parts)


def ratio(outputs: Outputs, batch: Batch) -> Float[Tensor, " P"]:
    """How much likelier each token has become: new over old probability, 1 off the mask.

    The logarithm is cut to [-20, 20] so that the ratio stays finite.
    """
    return (outputs.logprob - batch.logprob).clamp(-20, 20).exp()


def stopped(outputs: Outputs, batch: Batch, low: float, high: float) -> Bool[Tensor, " P"]:
    """Tokens whose gradient the clip of ``policy_gradient`` has stopped."""
    r = ratio(outputs, batch)
    return r.clamp(1 - low, 1 + high) * batch.advantage < r * batch.advantage


def dual_clip(
    surrogate: Float[Tensor, " P"], advantage: Float[Tensor, " P"], bound: float
) -> Float[Tensor, " P"]:
    """Bound the loss of a token with negative advantage at ``-bound * advantage``.

    Ye et al. 2020 (arXiv:1912.09729), eq. 4: one token that has become much likelier although it
    was bad no longer dominates; beyond the bound it has no gradient.
    """
    return torch.where(advantage < 0, surrogate.minimum(-bound * advantage), surrogate)


def policy_gradient(
    low: float = 0.2, high: float | None = None, *, dual: float | None = None
) -> Loss:
    """PPO's clipped surrogate per token, eq. 7 of Schulman et al. 2017 (arXiv:1707.06347).

    Args:
        low: The ratio may fall to ``1 - low`` before its gradient stops.
        high: And rise to ``1 + high``; equal to ``low`` unless given ("clip-higher", Yu et al.
            2025, arXiv:2503.14476, section 3.1).
        dual: Bound of ``dual_clip``, above 1; none unless given.
    """
    upper = low if high is None else high

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        ratio = (outputs.logprob - batch.logprob).exp()
        clipped = ratio.clamp(1 - low, 1 + upper)
        loss = -(ratio * batch.advantage).minimum(clipped * batch.advantage)
        return loss if dual is None else dual_clip(loss, batch.advantage, dual)

    return Loss(apply, name="surrogate")


def policy_gradient_kept(
    low: float = 0.2, high: float = 0.28, *, below: bool, dual: float | None = None
) -> Loss:
    """The clipped surrogate whose clipped tokens keep a gradient of the size of the clip.

    The value is that of ``policy_gradient``; beyond ``1 + high`` a token with positive advantage
    has the gradient coefficient ``1 + high`` instead of none.

    Args:
        low: As in ``policy_gradient``.
        high: As in ``policy_gradient``.
        below: Keep a gradient below ``1 - low`` too, where the advantage is negative (GPPO);
            otherwise only above ``1 + high`` (AEPO).
        dual: Bound of ``dual_clip``, above 1; none unless given.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        r = ratio(outputs, batch)
        one = r / r.detach()  # its value is 1, its gradient that of the log-probability
        clipped = torch.where(r > 1 + high, (1 + high) * one, r)
        clipped = torch.where(r < 1 - low, (1 - low) * (one if below else one.detach()), clipped)
        loss = -(r * batch.advantage).minimum(clipped * batch.advantage)
        return loss if dual is None else dual_clip(loss, batch.advantage, dual)

    return Loss(apply, name="surrogate")


def policy_gradient_controlled(
    low: float = 0.2,
    high: float = 0.2,
    *,
    below: float,
    above: float,
    dual: float | None = None,
) -> Loss:
    """The surrogate whose clipped tokens keep a chosen part of the gradient at the clip.

    CE-GPPO (Su et al. 2025, arXiv:2509.20712, the objective with beta1 and beta2): the parts scale
    the value as well, so that at (0, 0) the gradient is that of ``policy_gradient`` and a clipped
    token's loss is 0; at (1, 1) it is ``policy_gradient_kept`` on both sides (GPPO).

    Args:
        low: As in ``policy_gradient``.
        high: As in ``policy_gradient``.
        below: Part kept below ``1 - low`` where the advantage is negative: beta1.
        above: Part kept above ``1 + high`` where the advantage is positive: beta2.
        dual: Bound of ``dual_clip``, above 1; none unless given.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        r, advantage = ratio(outputs, batch), batch.advantage
        one = r / r.detach()  # its value is 1, its gradient that of the log-probability
        kept = torch.where((advantage < 0) & (r < 1 - low), below * (1 - low) * one, r)
        kept = torch.where((advantage > 0) & (r > 1 + high), above * (1 + high) * one, kept)
        loss = -kept * advantage
        return loss if dual is None else dual_clip(loss, advantage, dual)

    return Loss(apply, name="surrogate")


def reinforce() -> Loss:
    """Minus the advantage times the log-probability: the plain policy gradient."""
    return Loss(lambda outputs, batch, step: -batch.advantage * outputs.logprob, name="surrogate")


def kl_to_reference(bound: float = 10.0) -> Loss:
    """The k3 estimate of KL(policy || reference) per token, in nats, cut to ``bound``.

    ``exp(d) - 1 - d`` with d = log reference - log policy (Schulman 2020, "Approximating KL
    divergence"). The reference is the policy that training began with.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        move = (batch.extra[REFERENCE] - outputs.logprob).clamp(-20, 20)
        return (move.exp() - 1 - move).clamp(max=bound) * batch.mask

    return Loss(apply, frozenset({REFERENCE}), name="kl")


def value_error(clip: float | None, target: str) -> Loss:
    """Half the squared error of the critic, the worse of its value with and without a clip.

    Args:
        clip: How far the value counts as moved from the one before the update, in units of
            reward; none means any distance.
        target: Column that holds what the critic should say.
    """

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        assert outputs.value is not None, "an algorithm with `critic` gives values"
        error = (outputs.value - batch.extra[target]).square()
        if clip is not None:
            old = batch.extra[VALUE]
            near = old + (outputs.value - old).clamp(-clip, clip)
            error = error.maximum((near - batch.extra[target]).square())
        return 0.5 * error * batch.mask

    return Loss(apply, frozenset({VALUE, target}), name="value")


def negative_log_likelihood() -> Loss:
    """Minus the log-probability of the token: imitation of whatever the batch holds."""
    return Loss(lambda outputs, batch, step: -outputs.logprob, name="likelihood")


def entropy_bonus() -> Loss:
    """Minus the token entropy, so that minimising it explores."""
    return Loss(lambda outputs, batch, step: -outputs.entropy, name="entropy")
