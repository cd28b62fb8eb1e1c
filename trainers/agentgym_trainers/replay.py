"""A buffer of own good episodes, replayed against what is good now: the memory of SPEAR.

State is plain tensors and numbers, so that a checkpoint holds the buffer: the packed episodes, the
step each was played at, and the mean returns of past tasks. Axis S: stored episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import Batch, concatenate, pack, unpack
from agentgym.batch.turns import turns_of
from agentgym.credit.transforms import State, Transform, group_mean
from agentgym.utils.seeds import derive

REPLAYED = "replay/old"
"""Private column: 1 on tokens of replayed episodes, 0 on fresh ones."""


class Drawn(NamedTuple):
    """What a step replays, and what stays in the buffer."""

    replay: Bool[Tensor, " S"]
    stay: Bool[Tensor, " S"]


Draw = Callable[[Float[Tensor, " S"], int], Drawn]
"""Advantages of the stored episodes as they are now, and the step, to what is replayed."""


def sample(count: int, seed: int = 0) -> Draw:
    """At most ``count`` episodes with a positive advantage, at random; all stay.

    Args:
        count: Episodes.
        seed: Of the run; draws depend on it and on the step.
    """

    def draw(advantage: Tensor, step: int) -> Drawn:
        return Drawn(
            _some(advantage > 0, count, (seed, step)), torch.ones_like(advantage, dtype=torch.bool)
        )

    return draw


def burst(capacity: int, seed: int = 0, *, power_of_two: bool = False) -> Draw:
    """Nothing until 1.5 times the capacity is better than the median; then all, and none stays.

    Args:
        capacity: In episodes; at most so many are replayed.
        seed: Of the run; draws depend on it and on the step.
        power_of_two: Replay a power of two of them, episodes exactly at the median included, as
            the released code does.
    """

    def draw(advantage: Tensor, step: int) -> Drawn:
        full = int((advantage > 0).sum()) > 1.5 * capacity
        if not full:
            return Drawn(torch.zeros_like(advantage, dtype=torch.bool), advantage.isfinite())
        good = advantage >= 0 if power_of_two else advantage > 0
        count = floor_power_of_two(int(good.sum()), capacity) if power_of_two else capacity
        return Drawn(_some(good, count, (seed, step)), torch.zeros_like(good))

    return draw


def floor_power_of_two(count: int, most: int) -> int:
    """The largest power of two up to ``count`` and ``most``; 0 for one or none."""
    return 0 if count <= 1 else min(1 << (count.bit_length() - 1), most)


def _some(good: Tensor, count: int, names: tuple[int, int]) -> Tensor:
    index = good.nonzero().squeeze(-1)
    generator = torch.Generator().manual_seed(derive("replay", *names))
    order = torch.randperm(len(index), generator=generator)
    return torch.zeros_like(good).index_fill(0, index[order[:count]], True)


def recalibrate(reward: Float[Tensor, " S"], means: Float[Tensor, " M"]) -> Float[Tensor, " S"]:
    """Return less the median of past task means, interpolated where their number is even."""
    return reward - means.quantile(0.5) if len(means) else torch.zeros_like(reward)


def replay(
    capacity: int, patience: int, medians: int, draw: Draw, weighting: Transform
) -> Transform:
    """Add replayed episodes to the batch, and keep those of this step that beat their task.

    What is kept now is replayed at the next step at the earliest. Old log-probabilities stay those
    of the policy that played the episode.

    Args:
        capacity: Episodes kept, at most twice as many; the oldest go first.
        patience: Training steps an episode is kept.
        medians: Task means kept for the median; the oldest go first.
        draw: What is replayed.
        weighting: Without state; how much the tokens of the replayed episodes count.
    """

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        stored, born, means = state
        young = step - born <= patience
        out = batch.with_(**{REPLAYED: torch.zeros_like(batch.weight)})
        kept: Batch | None = unpack(stored).only(young) if len(born) else None
        born = born[young]
        if kept is not None and len(born):
            advantage = recalibrate(kept.reward, means)
            drawn = draw(advantage, step)
            if drawn.replay.any():
                old = _revived(kept.only(drawn.replay), advantage[drawn.replay])
                out = concatenate(out, weighting.apply(old, weighting.init(), step)[0])
            kept, born = kept.only(drawn.stay), born[drawn.stay]
        good = _beat_their_task(batch)
        fresh_ones = batch.only(good)
        kept = fresh_ones if kept is None else concatenate(kept, fresh_ones)
        born = torch.cat([born, torch.full((int(good.sum()),), step)])
        newest = torch.arange(len(born)) >= len(born) - 2 * capacity
        means = torch.cat([means, _task_means(batch)])[-medians:]
        return out, (pack(kept.only(newest)), born[newest], means)

    return Transform(
        lambda: ({}, torch.zeros(0, dtype=torch.long), torch.zeros(0)),
        apply,
        writes=frozenset({REPLAYED}) | weighting.writes,
        health=buffer_health,
    )


def buffer_health(state: State, step: int) -> dict[str, float]:
    """Episodes in the buffer, their mean age in training steps, and the median they must beat."""
    _, born, means = state
    found = {"replay/size": float(len(born))}
    if len(born):
        found["replay/age"] = float((step - born).float().mean())
    if len(means):
        found["replay/median"] = float(means.quantile(0.5))
    return found


def _revived(old: Batch, advantage: Float[Tensor, " S"]) -> Batch:
    return old.with_(
        advantage=advantage[old.episode_of_token] * old.mask,
        **{REPLAYED: torch.ones_like(old.weight)},
    )


def _beat_their_task(batch: Batch) -> Bool[Tensor, " E"]:
    """Episodes whose mean advantage over their tokens is positive, as they count in the loss."""
    turns = turns_of(batch)
    used = batch.advantage * (batch.weight > 0)
    return turns.per_episode(turns.total(used), batch) > 0


def _task_means(batch: Batch) -> Float[Tensor, " M"]:
    mean = group_mean(batch.reward, batch)
    first = torch.ones_like(batch.group, dtype=torch.bool)
    first[1:] = batch.group[1:] != batch.group[:-1]
    return mean[first].float()


def replayed(batch: Batch) -> Bool[Tensor, " N"]:
    """Rows of replayed episodes."""
    return torch.zeros(len(batch)).index_add(0, batch.row, batch.extra[REPLAYED]) > 0


def fresh(batch: Batch) -> Bool[Tensor, " N"]:
    """Rows played at this step."""
    return ~replayed(batch)
