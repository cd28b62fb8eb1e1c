"""RiskPO: learn from the lower tail of bundles of tasks (2025, arXiv:2510.00911).

The j-th episodes of ``bundle`` tasks, drawn without replacement, make one score R, the sum of their
returns. With a and b the ``low`` and ``high`` quantiles of R, tracked over steps, its advantage is
``-(1 + omega)(a - R)^+ + (R - a)^+ - (R - b)^+ + a - b``: 0 from b upwards, falling with slope 1
below it, and with slope 1 + omega below a. All episodes of the bundle share it. What is solved
already no longer counts, and the policy only learns what not to do, so the loss of a token with
negative advantage is bounded when its probability has risen.

Differs from the paper: the ratio is of a turn, as in ``gspo.py``, with the clip of that file; a
bundle that lacks tasks has its sum scaled up. ``paper()`` has one ratio per context and a clip of
0.2. ``released()``: bundles of neighbours, their own quantiles (the tracked ones are never read),
the code's mixture, scaled by the deviation of scores and of each task, and one ratio per token. The
code's other way to share credit, by each episode's part of the sum, can turn its sign, so that
right answers are punished: it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.batch.batch import Batch
from agentgym.credit.transforms import (
    State,
    Transform,
    centre,
    chain,
    group_mean,
    mean_over_episodes,
)
from agentgym.credit.weights import mask_truncated
from agentgym.losses.compose import Loss, Outputs
from agentgym.losses.surrogates import apply_dual_clip, policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, ordered, within
from agentgym.utils.seeds import derive
from agentgym_trainers.gspo import sequence_ratio


class Tail(NamedTuple):
    """Levels of the two quantiles, and how much the lower tail weighs."""

    low: float
    high: float
    weight: float


def bundles(batch: Batch, size: int, seed: int | None) -> Int[Tensor, " E"]:
    """Number of the bundle of each episode.

    Args:
        batch: The episodes; their tasks are drawn without replacement.
        size: Tasks in a bundle; the last one has what is left.
        seed: Of the draw; None bundles tasks in the order they have.
    """
    tasks, task = torch.unique(batch.group, return_inverse=True)
    order = torch.arange(len(tasks))
    if seed is not None:
        order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(seed))
    same = batch.group[:, None] == batch.group[None]
    place = same.tril(-1).sum(1)
    most = int(place.max()) + 1 if len(place) else 1
    return (order.to(task)[task] // size) * most + place


def scores(batch: Batch, bundle: Int[Tensor, " E"], size: int) -> Float[Tensor, " B"]:
    """Sum of returns of each bundle, scaled up where it lacks tasks; 0 for a number not in use."""
    count = torch.bincount(bundle)
    total = batch.reward.new_zeros(len(count)).index_add(0, bundle, batch.reward)
    return total * size / count.clamp(min=1)


def papers_advantage(
    score: Float[Tensor, " B"], a: Float[Tensor, "*B"], b: Float[Tensor, "*B"], tail: Tail
) -> Float[Tensor, " B"]:
    """At most 0: ``-(1 + weight)(a - R)^+ + (R - a)^+ - (R - b)^+ + a - b``."""
    middle = (score - a).clamp(min=0) - (score - b).clamp(min=0) + a - b
    return middle - (1 + tail.weight) * (a - score).clamp(min=0)


def released_advantage(
    score: Float[Tensor, " B"], a: Float[Tensor, "*B"], b: Float[Tensor, "*B"], tail: Tail
) -> Float[Tensor, " B"]:
    """The code's mixture of the middle and the tail, each over its width."""
    middle = (score - a).clamp(min=0) - (score - b).clamp(min=0) + a - b
    below = (a - score).clamp(min=0) / (tail.low + 1e-6)
    return (middle / (tail.high - tail.low + 1e-6) - tail.weight * below) / (tail.weight + 1)


def follow(quantile: float, score: Float[Tensor, " B"], level: float, rate: float) -> float:
    """A tracked quantile moved towards where a part ``level`` of the scores lies below it."""
    return quantile + rate * (level - float((score < quantile).to(score).mean()))


def risk_tracked(size: int, tail: Tail, rate: float, seed: int = 0) -> Transform:
    """The paper's advantage, with quantiles that start from the first batch and then follow."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        if not len(batch.group):
            return batch, state
        bundle = bundles(batch, size, derive("riskpo", seed, step))
        score = scores(batch, bundle, size)
        used = score[torch.bincount(bundle) > 0]
        a, b = state or (float(used.quantile(tail.low)), float(used.quantile(tail.high)))
        value = papers_advantage(score, score.new_tensor(a), score.new_tensor(max(a, b)), tail)
        moved = (follow(a, used, tail.low, rate), follow(b, used, tail.high, rate))
        return _spread(batch, value[bundle]), moved

    return Transform(tuple, apply)


def risk_released(size: int, tail: Tail) -> Transform:
    """The code's advantage: quantiles of each run of tasks, over deviations."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        if not len(batch.group):
            return batch, state
        bundle = bundles(batch, size, None)
        score = scores(batch, bundle, size)
        most = int(torch.bincount(batch.group).max())
        value = torch.zeros_like(score)
        for first in range(0, len(score), most):
            run = score[first : first + most]
            a, b = run.quantile(tail.low), run.quantile(tail.high)
            deviation = run.std() if len(run) > 1 else run.new_ones(())
            value[first : first + most] = released_advantage(run, a, b, tail) / (deviation + 1e-6)
        variance = group_mean(centre(batch.reward, batch.group).square(), batch)
        deviation = variance.sqrt()
        deviation = torch.where(deviation <= 1e-3, torch.ones_like(deviation), deviation)
        return _spread(batch, value[bundle] / deviation), state

    return Transform(tuple, apply)


def _spread(batch: Batch, value: Float[Tensor, " E"]) -> Batch:
    return batch.with_(advantage=value[batch.episode_of_token] * batch.mask)


def with_dual_clip(loss: Loss, bound: float) -> Loss:
    """A surrogate whose loss at a token of negative advantage is at most ``-bound * advantage``."""

    def apply(outputs: Outputs, batch: Batch, step: int) -> Tensor:
        return apply_dual_clip(loss.apply(outputs, batch, step), batch.advantage, bound)

    return loss._replace(apply=apply)


@dataclass(frozen=True, kw_only=True)
class RiskPO:
    """Risk-based policy optimisation over bundles of tasks."""

    about: ClassVar[About] = About(
        "2510.00911",
        "n episodes side by side",
        "sum of returns of a bundle of tasks, below its upper quantile, more below the lower",
        "surrogate with one clipped ratio per turn and a dual clip",
    )

    group_size: int = 8
    """Episodes per task."""
    bundle_size: int = 5
    """Tasks whose episodes share a score."""
    quantile_low: float = 0.2
    """Level of the lower quantile: alpha."""
    quantile_high: float = 0.8
    """Level of the upper one: beta."""
    omega: float = 0.5
    """How much more the tail below the lower quantile weighs."""
    quantile_step_size: float = 0.1
    """How fast tracked quantiles move, in units of reward."""
    clip_ratio_low: float = 3e-3
    """How far a ratio may fall below 1."""
    clip_ratio_high: float = 4e-3
    """How far it may rise above 1."""
    ratio_per: Literal["turn", "row", "token"] = "turn"
    """What has one ratio."""
    dual_clip: float | None = 3.0
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
    objective: Literal["tracked", "released"] = "tracked"
    """The paper's advantage, or the code's."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "group_size", "bundle_size", "minibatches")
        within(0, 1, self, "quantile_low", "quantile_high", "clip_ratio_low")
        ordered(self, "quantile_low", "quantile_high")
        at_least(0, self, "omega", "quantile_step_size", "clip_ratio_high")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> RiskPO:
        """The paper's setting."""
        return cls(
            group_size=10, clip_ratio_low=0.2, clip_ratio_high=0.2, ratio_per="row", dual_clip=None
        )

    @classmethod
    def released(cls) -> RiskPO:
        """The authors' script for mathematics."""
        return cls(
            group_size=5,
            quantile_high=0.9,
            omega=1.5,
            clip_ratio_low=0.2,
            clip_ratio_high=0.2,
            ratio_per="token",
            objective="released",
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        tail = Tail(self.quantile_low, self.quantile_high, self.omega)
        laws = {
            "tracked": risk_tracked(self.bundle_size, tail, self.quantile_step_size, run.seed),
            "released": risk_released(self.bundle_size, tail),
        }
        surrogate = (
            policy_gradient(self.clip_ratio_low, self.clip_ratio_high)
            if self.ratio_per == "token"
            else sequence_ratio(
                self.clip_ratio_low, self.clip_ratio_high, turn=self.ratio_per == "turn"
            )
        )
        loss = surrogate if self.dual_clip is None else with_dual_clip(surrogate, self.dual_clip)
        return Algorithm(
            collect=independent(self.group_size),
            credit=chain(
                laws[self.objective], mean_over_episodes(), *mask_truncated(self.truncated_episodes)
            ),
            updates=(Update(loss=loss, minibatches=self.minibatches),),
        )
