"""Credit assignment: transforms of a batch that end in per-token advantages.

A transform is a pair of pure functions, after optax. State is a value the trainer carries and
checkpoints; a transform never hides any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from agentgym.batch.batch import Batch, episode_mean
from agentgym.errors import CompositionError
from agentgym.losses.reductions import Reduction, distinct

State = Any


class Transform(NamedTuple):
    """``init() -> state`` and ``apply(batch, state, step) -> (batch, state)``."""

    init: Callable[[], State]
    apply: Callable[[Batch, State, int], tuple[Batch, State]]
    reads: frozenset[str] = frozenset()
    """Private columns that must exist before this runs."""
    writes: frozenset[str] = frozenset()
    """Private columns this adds."""
    reductions: tuple[Reduction, ...] = ()
    """What it asks of the vocabulary; the learner writes each as a private column."""
    health: Callable[[State, int], dict[str, float]] = lambda state, step: {}
    """Metrics of its state after a step."""


def stateless(
    f: Callable[[Batch], Batch],
    *,
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    reductions: Iterable[Reduction] = (),
) -> Transform:
    """A transform that remembers nothing."""
    return Transform(
        init=lambda: (),
        apply=lambda batch, state, step: (f(batch), state),
        reads=frozenset(reads),
        writes=frozenset(writes),
        reductions=tuple(reductions),
    )


def chain(*transforms: Transform) -> Transform:
    """Apply transforms in order, threading each one's own state."""
    written: frozenset[str] = frozenset()
    needed: frozenset[str] = frozenset()
    for transform in transforms:
        needed |= transform.reads - written
        written |= transform.writes

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        states = []
        for transform, own in zip(transforms, state, strict=True):
            batch, own = transform.apply(batch, own, step)
            states.append(own)
        return batch, tuple(states)

    def health(state: State, step: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for transform, own in zip(transforms, state, strict=True):
            found |= transform.health(own, step)
        return found

    asked = distinct(r for transform in transforms for r in transform.reductions)
    return Transform(
        lambda: tuple(t.init() for t in transforms), apply, needed, written, asked, health
    )


def check_columns(
    credit: Transform, reads: frozenset[str], given: frozenset[str] = frozenset()
) -> None:
    """Refuse an algorithm with a loss that reads what neither credit nor the learner writes.

    Raises:
        CompositionError: Naming the missing columns.
    """
    missing = sorted((credit.reads | (reads - credit.writes)) - given)
    if missing:
        raise CompositionError(
            f"nothing writes {', '.join(map(repr, missing))}: add the transform that does "
            f"to `credit`, before its reader (written so far: {sorted(credit.writes) or 'nothing'})"
        )


def mean_by(value: Float[Tensor, " K"], key: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """For each value the mean of those with the same key."""
    zeros = value.new_zeros(int(key.max()) + 1 if len(key) else 0)
    total = zeros.index_add(0, key, value)
    count = zeros.index_add(0, key, torch.ones_like(value))
    return (total / count.clamp(min=1))[key]


def group_mean(value: Float[Tensor, " E"], batch: Batch) -> Float[Tensor, " E"]:
    """Mean of a per-episode value over the episodes of the same task, for each episode."""
    return mean_by(value, batch.group)


def mean_of_episode(
    value: Float[Tensor, " P"], batch: Batch, inside: Bool[Tensor, " P"] | None = None
) -> Float[Tensor, " E"]:
    """Mean of a per-token value over each episode's tokens on the mask; 0 where there are none.

    Args:
        value: One number per position.
        batch: The batch.
        inside: Only these of the tokens on the mask.
    """
    at = (batch.mask if inside is None else batch.mask & inside).nonzero().squeeze(-1)
    zeros = value.new_zeros(len(batch.group))
    total = zeros.index_add(0, batch.episode_of_token[at], value[at])
    count = zeros.index_add(0, batch.episode_of_token[at], torch.ones_like(value[at]))
    return total / count.clamp(min=1)


def centre(value: Float[Tensor, " K"], key: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Values less the mean of those with the same key; exactly 0 where these are all equal.

    A mean of equal numbers may differ from them by rounding, and a deviation of that size, divided
    by itself, is no longer small.
    """
    zeros = value.new_zeros(int(key.max()) + 1 if len(key) else 0)
    low = zeros.scatter_reduce(0, key, value, "amin", include_self=False)
    high = zeros.scatter_reduce(0, key, value, "amax", include_self=False)
    return torch.where((low == high)[key], torch.zeros_like(value), value - mean_by(value, key))


def deviation_by(
    centred: Float[Tensor, " K"], key: Int[Tensor, " K"], *, unbiased: bool
) -> Float[Tensor, " K"]:
    """For each value the standard deviation of those with the same key; 0 if it is alone.

    Args:
        centred: What ``centre`` gives.
        key: The same key.
        unbiased: One degree of freedom less.
    """
    variance = mean_by(centred.square(), key)
    if unbiased:
        size = torch.bincount(key)[key]
        variance = variance * size / (size - 1).clamp(min=1)
    return variance.sqrt()


def group_advantage(
    *, scale: bool = True, epsilon: float = 1e-6, unbiased: bool = False
) -> Transform:
    """Return minus the mean return of the same task, optionally over its standard deviation.

    Every token of an episode gets the same value. A group of one, or of equal returns, gets
    exactly zero.
    Statistics are over episodes, however many rows each has.

    Args:
        scale: Divide by the group's population standard deviation (GRPO); False keeps the plain
            difference (Dr.GRPO).
        epsilon: Added to the standard deviation, in units of reward.
        unbiased: Take the standard deviation with one degree of freedom less, as most code does;
            in a group of 8 the advantage is then smaller by a factor of 0.935.
    """

    def apply(batch: Batch) -> Batch:
        value = centre(batch.reward, batch.group)
        if scale:
            value = value / (deviation_by(value, batch.group, unbiased=unbiased) + epsilon)
        return batch.with_(advantage=value[batch.episode][batch.row] * batch.mask)

    return stateless(apply)


def mean_over_episodes(*, tied: bool = False) -> Transform:
    """Give every episode that has an advantage the same weight, spread over its tokens.

    The per-answer mean of GRPO (Shao et al. 2024, arXiv:2402.03300, eq. 3); see ``episode_mean``.
    Episodes without an advantage get none, the filter of DAPO's dynamic sampling (Yu et al. 2025,
    arXiv:2503.14476, section 3.2). Differs: nothing is resampled.

    Args:
        tied: Keep episodes without an advantage, on which a regulariser may still act.
    """

    def apply(batch: Batch) -> Batch:
        counts = batch.mask if tied else batch.mask & (batch.advantage != 0)
        return batch.with_(weight=episode_mean(batch, counts))

    return stateless(apply)
