"""An algorithm is three choices: how to collect, how to assign credit, what to minimise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from agentgym.batch.batch import REFERENCE, VALUE, Batch
from agentgym.credit.transforms import Transform, chain, check_columns
from agentgym.errors import CompositionError
from agentgym.losses.compose import Loss, Outputs, add
from agentgym.rollout.collect import Collect


class About(NamedTuple):
    """What `agentgym algorithms` prints: arXiv id, and each of the three choices in a phrase."""

    arxiv: str
    collect: str
    credit: str
    update: str


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What an algorithm may know about the run that trains with it."""

    steps: int = 40
    """Training steps; schedules are fractions of them."""
    max_turns: int = 50
    """Turns after which an episode is truncated."""
    max_completion_tokens: int = 32
    """Longest completion of one turn, in tokens."""
    seed: int = 0
    """Root of the random choices that credit makes."""

    @property
    def max_episode_tokens(self) -> int:
        """Most tokens that the policy can write in an episode."""
        return self.max_turns * self.max_completion_tokens

    def steps_in(self, fraction: float) -> int:
        """A fraction of the run in training steps, at least one."""
        return max(1, round(fraction * self.steps))


DEFAULT_RUN = RunInfo()
"""The run that the default settings make."""


@runtime_checkable
class AlgorithmSettings(Protocol):
    """Settings of an algorithm: a frozen dataclass that builds it."""

    about: ClassVar[About]
    """Source and parts."""

    def build(self, run: RunInfo) -> Algorithm:
        """The algorithm with these settings, in a run."""


def every_row(batch: Batch) -> Bool[Tensor, " N"]:
    """All rows of a batch."""
    return torch.ones(len(batch), dtype=torch.bool, device=batch.episode.device)


class Select(NamedTuple):
    """``apply(outputs, batch, generator)`` writes columns that depend on the policy as it is now.

    It takes a whole minibatch and the policy's outputs on it before the optimiser step, which
    costs a forward pass; nothing in it has a gradient.
    """

    apply: Callable[[Outputs, Batch, torch.Generator], Batch]
    writes: frozenset[str] = frozenset()
    """Private columns this adds."""
    reads: frozenset[str] = frozenset()
    """Private columns that credit or the learner must have written."""
    asks: frozenset[str] = frozenset()
    """Names of reductions it finds in ``Outputs.extra``; the loss of its update must carry them."""


@dataclass(frozen=True, kw_only=True)
class CriticPlan:
    """A network that predicts the return, trained beside the policy; it starts as its copy."""

    learning_rate: float = 1e-3
    max_grad_norm: float = 1.0
    """Largest gradient norm."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """A loss, the rows it is taken over, and how many optimiser steps it is worth."""

    loss: Loss
    rows: Callable[[Batch], Bool[Tensor, " N"]] = every_row
    """Rows that take part; an update without rows is skipped."""
    minibatches: int = 1
    """Optimiser steps per pass; each takes a random, disjoint share of the episodes."""
    epochs: int = 1
    """Passes over the batch."""
    name: str = "update"
    """Prefix of its metrics."""
    select: Select | None = None
    """Columns computed for every minibatch."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What a paper contributes, in the three places a contribution can live.

    Raises:
        CompositionError: A piece reads a column that none before it writes, or a selection a
            reduction that no loss asks for.
    """

    collect: Collect
    credit: Transform
    updates: tuple[Update, ...]
    """Each in its turn; most algorithms have one."""
    critic: CriticPlan | None = None
    """The learner keeps a critic, and writes ``batch.VALUE`` before credit."""
    reference: bool = False
    """The learner keeps the policy that training began with, and writes ``batch.REFERENCE``."""

    def __post_init__(self) -> None:
        """Fail when the pieces do not fit, before any accelerator is touched."""
        given = {VALUE} if self.critic else set()
        given |= {REFERENCE} if self.reference else set()
        given |= {reduction.name for reduction in self.credit.reductions}
        for update in self.updates:
            needed = frozenset().union(*(term.reads for term in update.loss.terms()))
            if update.select:
                needed = update.select.reads | (needed - update.select.writes)
                _check_asked(update.select, update.loss)
            check_columns(self.credit, needed, frozenset(given))


def _check_asked(select: Select, loss: Loss) -> None:
    missing = sorted(select.asks - {reduction.name for reduction in loss.asks()})
    if missing:
        raise CompositionError(
            f"no loss asks for {', '.join(map(repr, missing))}, which `select` needs: let a term "
            f"of its update carry the reduction"
        )


def extend(
    base: Algorithm,
    *,
    reward: Transform | None = None,
    credit: Transform | None = None,
    loss: Loss | None = None,
    select: Select | None = None,
) -> Algorithm:
    """An algorithm with more to it.

    Args:
        base: The algorithm.
        reward: What happens to rewards, before its own credit.
        credit: Further credit, after its own.
        loss: Further terms in its first update.
        select: Further columns of a minibatch in its first update, after its own.
    """
    first, *others = base.updates
    if loss is not None:
        first = replace(first, loss=add(first.loss, loss))
    if select is not None:
        first = replace(
            first, select=select if first.select is None else both(first.select, select)
        )
    pieces = (reward, base.credit, credit)
    whole = chain(*(piece for piece in pieces if piece is not None))
    return replace(base, credit=whole, updates=(first, *others))


def both(one: Select, other: Select) -> Select:
    """The columns of two selections; the second reads those of the first."""

    def apply(outputs: Outputs, batch: Batch, generator: torch.Generator) -> Batch:
        return other.apply(outputs, one.apply(outputs, batch, generator), generator)

    return Select(
        apply,
        one.writes | other.writes,
        one.reads | (other.reads - one.writes),
        one.asks | other.asks,
    )
