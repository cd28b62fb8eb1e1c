"""A corridor around past entropy, and what a token pays outside: the pieces of EPO.

Axes: P positions, K turns. Statistics are over turns and tokens of the whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.turns import Turns, turns_of
from agentgym.credit.transforms import State, Transform
from agentgym.losses.compose import Loss, Outputs

LOW = "epo/low"
"""Private column: lower side of the token's corridor, in nats; minus infinity without history."""
HIGH = "epo/high"
"""Private column: upper side, in nats; infinity without history."""


def overall_history(low: float, high: float) -> Transform:
    """A corridor around the mean, over all earlier steps, of the mean token entropy.

    State is the sum of the means and their number.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        total, count = state
        reference = total / count if count else math.nan
        here = torch.full_like(batch.entropy, reference)
        inside = batch.entropy[batch.mask]
        seen = (total + float(inside.mean()), count + 1) if len(inside) else state
        return corridor(batch, here, low, high), seen

    return Transform(lambda: (0.0, 0), apply, writes=frozenset({LOW, HIGH}))


def turn_history(low: float, high: float, turns: int) -> Transform:
    """The same for each turn number by itself, over the steps that reached it.

    State is the sum of the means and their number, each (turns,); later turns share the last slot.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        total, count = state
        found = turns_of(batch)
        slot = found.number.clamp(max=turns - 1)
        reference = found.spread((total / count)[slot], batch)
        mean, seen = turn_means(batch.entropy, batch, found, turns)
        return corridor(batch, reference, low, high), (total + mean, count + seen)

    zeros = torch.zeros(turns)
    return Transform(lambda: (zeros, zeros), apply, writes=frozenset({LOW, HIGH}))


def padded_history(low: float, high: float, turns: int, gate: int) -> Transform:
    """The released code's: per turn, with the current step, shorter steps padded from the left."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        total, count = state
        found = turns_of(batch)
        slot = found.number.clamp(max=turns - 1)
        mean, seen = turn_means(batch.entropy, batch, found, turns)
        total, count = total + mean.roll(turns - int(seen.sum())), count + 1
        late = len(slot) and int(found.number.max()) >= gate
        reference = (total / count)[slot] if late else torch.full((len(slot),), math.nan)
        return corridor(batch, found.spread(reference, batch), low, high), (total, count)

    return Transform(lambda: (torch.zeros(turns), 0), apply, writes=frozenset({LOW, HIGH}))


def turn_means(value: Tensor, batch: Batch, turns: Turns, most: int) -> tuple[Tensor, Tensor]:
    """Mean over the tokens of each turn number, and whether there were any; both (most,)."""
    slot = turns.number.clamp(max=most - 1)
    total = torch.zeros(most).index_add(0, slot, turns.total(value).float())
    count = torch.zeros(most).index_add(0, slot, turns.length.float())
    return total / count.clamp(min=1), (count > 0).float()


def corridor(batch: Batch, reference: Tensor, low: float, high: float) -> Batch:
    """Write both sides; where the reference is NaN there is no corridor."""
    known = batch.mask & ~reference.isnan()
    return batch.with_(
        **{
            LOW: torch.where(known, low * reference, -math.inf),
            HIGH: torch.where(known, high * reference, math.inf),
        }
    )


def outside() -> Loss:
    """Distance of a token's entropy from its corridor, in nats (eq. 3); pulls it back."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        below = (batch.extra[LOW] - outputs.entropy).clamp(min=0)
        return below + (outputs.entropy - batch.extra[HIGH]).clamp(min=0)

    return Loss(apply, frozenset({LOW, HIGH}), name="corridor")


def outside_indicator() -> Loss:
    """1 outside the corridor and 0 inside: a number that training cannot change."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        entropy = outputs.entropy
        return (~((entropy > batch.extra[LOW]) & (entropy < batch.extra[HIGH]))).to(entropy)

    return Loss(apply, frozenset({LOW, HIGH}), name="corridor")
