"""What a loss is, and how losses are added, scaled and scheduled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.losses.reductions import Reduction, distinct

Schedule = Callable[[int], float]
"""Step number to coefficient."""


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
