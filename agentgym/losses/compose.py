"""What a loss is, and how losses are added, scaled and scheduled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.losses.reductions import Reduction, distinct

Schedule = Callable[[int], float]
"""Step number to coefficient."""


Divisor = Callable[[Batch, str], Float[Tensor, ""]]
"""What the weighted sum over a minibatch is divided by, given its weight column."""


def weight_sum(batch: Batch, column: str) -> Float[Tensor, ""]:
    """The sum of the weights: the loss is a weighted mean over the minibatch."""
    return batch.column(column).sum()


class Outputs(NamedTuple):
    """The policy's current outputs on the tokens of a batch; 0 off the mask."""

    logprob: Float[Tensor, " P"]
    """In nats."""
    entropy: Float[Tensor, " P"]
    """In nats, over the whole vocabulary."""
    value: Float[Tensor, " P"] | None = None
    """The critic's, before each token, in units of reward; None without a critic."""
    extra: Mapping[str, Tensor] = MappingProxyType({})
    """What the loss asked of the vocabulary, each (P,), by the name of its reduction."""

    def columns(self) -> list[Tensor]:
        """Log-probability, entropy, what the loss asked for, and the value where there is one."""
        value = [] if self.value is None else [self.value]
        return [self.logprob, self.entropy, *self.extra.values(), *value]

    def detached(self) -> Outputs:
        """Copies with gradients of their own, which end there."""

        def leaf(column: Tensor) -> Tensor:
            return column.detach().requires_grad_()

        return Outputs(
            leaf(self.logprob),
            leaf(self.entropy),
            None if self.value is None else leaf(self.value),
            {name: leaf(column) for name, column in self.extra.items()},
        )


class Loss(NamedTuple):
    """``apply(outputs, batch, step)`` gives a (P,) tensor to be minimised."""

    apply: Callable[[Outputs, Batch, int], Float[Tensor, " P"]]
    reads: frozenset[str] = frozenset()
    """Private columns it needs."""
    weight: str = "weight"
    """Column with the weight of each token."""
    plus: tuple[Loss, ...] = ()
    """Further terms, each under a weight column of its own."""
    reductions: tuple[Reduction, ...] = ()
    """What it asks of the vocabulary; found in ``Outputs.extra``."""
    name: str = "loss"
    """What it is called where it is measured apart."""
    parts: tuple[Loss, ...] = ()
    """What a sum under one weight column was made of."""
    divisor: Divisor = weight_sum
    """What the weighted sum over a minibatch is divided by."""

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
    """The sum of losses; those with one weight column and divisor become one term."""
    by_weight: dict[tuple[str, Divisor], list[Loss]] = {}
    for loss in losses:
        for term in loss.terms():
            by_weight.setdefault((term.weight, term.divisor), []).append(term)
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
        divisor=terms[0].divisor,
    )


def scale(coefficient: float | Schedule, loss: Loss) -> Loss:
    """A loss times a number, or times a schedule of the step."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        scale = coefficient(step) if callable(coefficient) else coefficient
        return scale * loss.apply(outputs, batch, step)

    return loss._replace(
        apply=apply,
        plus=tuple(scale(coefficient, term) for term in loss.plus),
        parts=tuple(scale(coefficient, part) for part in loss.parts),
    )


def weighted_by(column: str, loss: Loss) -> Loss:
    """A loss of one term under another weight column, such as ``agentgym.credit.weights.TURNS``."""
    parts = tuple(weighted_by(column, part) for part in loss.parts)
    return loss._replace(weight=column, reads=loss.reads | {column}, parts=parts)


def token_sum(loss: Loss, constant: int, *, per_episode: bool = True) -> Loss:
    """The sum of a loss over the tokens that have weight, divided by a constant.

    Dr.GRPO, Liu et al. 2025 (arXiv:2503.20783), section 3.2: no length is favoured, whatever the
    minibatch. The weights of these tokens must be equal.

    Args:
        loss: Of one term.
        constant: In tokens.
        per_episode: Divide by the number of episodes in the minibatch, too; common code does not.
    """

    def divisor(batch: Batch, column: str) -> Tensor:
        weight = batch.column(column)
        episodes = len(torch.unique(batch.episode)) if per_episode else 1
        return weight.max() * episodes * constant

    parts = tuple(part._replace(divisor=divisor) for part in loss.parts)
    return loss._replace(divisor=divisor, parts=parts)


def times_column(column: str, loss: Loss) -> Loss:
    """A loss of one term times a private column, token by token; the weights stay."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return loss.apply(outputs, batch, step) * batch.extra[column]

    parts = tuple(times_column(column, part) for part in loss.parts)
    return loss._replace(apply=apply, reads=loss.reads | {column}, parts=parts)


def with_advantage(column: str, loss: Loss) -> Loss:
    """A loss of one term with a private column in the place of the advantage."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return loss.apply(outputs, batch.with_(advantage=batch.extra[column]), step)

    parts = tuple(with_advantage(column, part) for part in loss.parts)
    return loss._replace(apply=apply, reads=loss.reads | {column}, parts=parts)


def minibatch_loss(loss: Loss, outputs: Outputs, batch: Batch, step: int = 0) -> Float[Tensor, ""]:
    """The number that a loss is on a minibatch read at once; terms without weight count 0."""
    total = outputs.logprob.new_zeros(())
    for term in loss.terms():
        divisor = term.divisor(batch, term.weight)
        if divisor > 0:
            value = term.apply(outputs, batch, step) * batch.column(term.weight)
            total = total + value.sum() / divisor
    return total
