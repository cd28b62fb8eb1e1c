"""ARES: as much exploration as the task needs (2025, arXiv:2510.08457).

A window is a token and the next few of its turn; it counts when its mean entropy exceeds the mean
over episodes of their 95th percentiles. N is an episode's number of such windows, a task is easy,
medium or hard by the share of its episodes that were won, and N is compared with a target for
that difficulty. Wins of easy tasks lose reward for exploring more than the target, wins of medium
tasks for any deviation, wins of hard tasks gain for exploring; a loss gains for exploring more.

Differs from the code: windows of the policy's own entropy count, not places where the likeliest
token is on a list of words; the target is a running mean over *won* episodes of that difficulty,
and a loss that explores no more than the target gains nothing (the code pays it half the most);
the size of the shaping is constant, as the code's controller adds up rounding errors; no branching,
which the code lacks too, and no KL penalty per difficulty.

``paper()``: only losses pay, by a multiplier that is the excess of the mean N over its target. With
the paper's target, which is that mean, it is always 0, so that this is its base. ``released()``:
the order of steps makes every task easy and every target 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.batch.turns import quantile_by, turns_of, windows
from agentgym.credit.reward_shaping import add_episode_reward
from agentgym.credit.transforms import State, Transform, group_mean
from agentgym.errors import ImpossibleValue
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.grpo import GRPO

EASY, MEDIUM, HARD = range(3)
MARGIN = (0.15, 0.25, 0.35)
"""Deviation from the target that is free, as a part of it, by difficulty."""
KNEE = (2.0, 3.0, 4.0)
"""Where the penalty turns from a square into a line."""
TEMPERATURE = (2.0, 2.5, 3.0)
"""How slowly the bonus grows."""
SCALE = (1.0, 1.0, 1.2)
"""Most that is gained or lost, in parts of ``alpha``."""
LOST = (0.6, 0.8, 1.0)
"""Part of the bonus that a loss gets."""


class Explored(NamedTuple):
    """What the shaping is a function of; axis E."""

    windows: Float[Tensor, " E"]
    """Windows of high entropy: N."""
    target: Float[Tensor, " E"]
    won: Tensor
    difficulty: Int[Tensor, " E"]


def count_windows(batch: Batch, width: int, level: float) -> Float[Tensor, " E"]:
    """Windows whose mean entropy exceeds the mean of the episodes' quantiles, per episode."""
    turns = turns_of(batch)
    mean = windows(batch.entropy, turns, width)
    whole = ~mean.isnan()
    owner = batch.episode_of_token[turns.at]
    episodes = len(batch.group)
    high = quantile_by(mean[whole], owner[whole], level, episodes)
    some = torch.bincount(owner[whole], minlength=episodes) > 0
    if not some.any():
        return batch.reward.new_zeros(episodes)
    counted = (whole & (mean > high[some].mean())).to(batch.reward)
    return batch.reward.new_zeros(episodes).index_add(0, owner, counted)


def difficulty_of(batch: Batch, easy: float, medium: float) -> Int[Tensor, " E"]:
    """Difficulty of each episode's task, by the share of its episodes that were won."""
    share = group_mean(batch.won.to(batch.reward), batch) + 1e-6
    return (share < easy).long() + (share < medium).long()


def huber(excess: Float[Tensor, " E"], knee: Float[Tensor, " E"]) -> Float[Tensor, " E"]:
    """A square up to the knee, then a line."""
    return torch.where(excess <= knee, excess.square() / (2 * knee), excess - knee / 2)


def graded(seen: Explored, alpha: float, *, paid_at_target: bool) -> Float[Tensor, " E"]:
    """The code's shaping, in units of reward, at most ``alpha`` times ``SCALE`` in size.

    Args:
        seen: Counts, targets, outcomes, difficulties.
        alpha: Size.
        paid_at_target: A loss gains half the most at the target already, as in the code.
    """
    margin, knee, temperature, scale, lost = (
        seen.windows.new_tensor(table)[seen.difficulty]
        for table in (MARGIN, KNEE, TEMPERATURE, SCALE, LOST)
    )
    most, delta = alpha * scale, seen.windows - seen.target
    margin = (margin * seen.target.clamp(min=1)).clamp(min=1)
    hard = seen.difficulty == HARD
    distance = torch.where(seen.difficulty == EASY, delta, delta.abs())
    distance = torch.where(hard, -delta, distance)
    excess = (distance - margin).clamp(min=0)
    fine = huber(excess, knee) / (margin + knee) * most * torch.where(hard, 0.5, 1.0)
    bold = ((delta + margin) / temperature).sigmoid() * most
    of_win = torch.where(hard & (delta >= -margin), bold, -fine.minimum(most))
    gate = ((delta - margin).clamp(min=0) / temperature).sigmoid()
    of_loss = (gate if paid_at_target else 2 * gate - 1) * most * lost
    return torch.where(seen.won, of_win, of_loss)


def multiplied(seen: Explored) -> Float[Tensor, " E"]:
    """The paper's: a loss pays the multiplier of its difficulty times its distance from target."""
    delta = seen.windows - seen.target
    pays = torch.stack([delta.clamp(min=0), delta.abs(), (-delta).clamp(min=0)])
    distance = pays.gather(0, seen.difficulty[None])[0]
    paid = torch.zeros_like(distance)
    for kind in range(3):
        here = seen.difficulty == kind
        if here.any():
            gap = seen.windows[here].mean() - seen.target[here].mean()
            multiplier = (gap / (seen.windows[here].var(correction=0) + 1e-6)).clamp(min=0)
            paid = torch.where(here, multiplier * distance, paid)
    return -paid * ~seen.won


def explore_as_needed(config: ARES) -> Transform:
    """Add the shaping to the reward of each episode; remembers the targets."""

    def apply(batch: Batch, state: State, step: int) -> tuple[Batch, State]:
        count = count_windows(batch, config.window_size, config.entropy_quantile)
        difficulty = difficulty_of(batch, config.easy_success_rate, config.medium_success_rate)
        mean, known = state
        for kind in range(3):
            here = difficulty == kind
            used = here & batch.won if config.target_mode == "wins" else here
            if used.any():
                now, old = count[used].mean().to(mean), float(mean[kind])
                keep = (
                    config.target_momentum
                    if bool(known[kind]) and config.target_mode == "wins"
                    else 0.0
                )
                mean = mean.index_fill(
                    0, torch.tensor([kind]), float(keep * old + (1 - keep) * now)
                )
                known = known.index_fill(0, torch.tensor([kind]), True)
        target = torch.where(known[difficulty], mean.to(count)[difficulty], count)
        target = torch.zeros_like(count) if config.target_mode == "zero" else target
        seen = Explored(count, target, batch.won, difficulty)
        laws = {
            "graded": lambda: graded(
                seen, config.alpha, paid_at_target=config.failure_reward == "paid"
            ),
            "multiplied": lambda: multiplied(seen),
        }
        return add_episode_reward(batch, laws[config.shaping_form]()), (mean, known)

    return Transform(lambda: (torch.zeros(3), torch.zeros(3, dtype=torch.bool)), apply)


@dataclass(frozen=True, kw_only=True)
class ARES:
    """GRPO with a reward for as much exploration as a task needs."""

    about: ClassVar[About] = About(
        "2510.08457",
        "its base's",
        "its base's, of a return that asks hard tasks for exploration and easy ones for none",
        "its base's",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives credit and loss."""
    window_size: int = 4
    """Tokens of a window."""
    entropy_quantile: float = 0.95
    """Quantile of an episode's windows beyond which entropy is high."""
    easy_success_rate: float = 2 / 3
    """Share of won episodes from which a task is easy."""
    medium_success_rate: float = 1 / 3
    """Share from which it is medium; below it is hard."""
    alpha: float = 0.5
    """Size of the shaping, in units of reward."""
    target_momentum: float = 0.9
    """How much of a target stays from one step to the next."""
    target_mode: Literal["wins", "mean", "zero"] = "wins"
    """Running mean over wins, mean of the batch, or none."""
    shaping_form: Literal["graded", "multiplied"] = "graded"
    """The code's shaping, or the paper's."""
    failure_reward: Literal["unpaid", "paid"] = "unpaid"
    """Whether a loss gains at the target already."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "window_size")
        within(
            0,
            1,
            self,
            "entropy_quantile",
            "easy_success_rate",
            "medium_success_rate",
            "target_momentum",
        )
        above(0, self, "alpha")
        if self.medium_success_rate > self.easy_success_rate:
            raise ImpossibleValue(
                f"ARES.medium_success_rate is {self.medium_success_rate}, expected at "
                f"most easy_success_rate ({self.easy_success_rate})"
            )

    @classmethod
    def paper(cls) -> ARES:
        """The paper's setting."""
        base = GRPO(clip_ratio_high=0.3, dual_clip=3.0, kl_coef=0.01, loss_aggregation="token-mean")
        return cls(
            base=base,
            easy_success_rate=0.75,
            medium_success_rate=0.375,
            target_mode="mean",
            shaping_form="multiplied",
        )

    @classmethod
    def released(cls) -> ARES:
        """The authors' code, as it runs."""
        base = GRPO(clip_ratio_high=0.3, dual_clip=3.0, kl_coef=0.01, loss_aggregation="token-mean")
        return cls(
            base=base,
            easy_success_rate=0.0,
            medium_success_rate=0.0,
            target_mode="zero",
            failure_reward="paid",
        )

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        return extend(self.base.build(run), reward=explore_as_needed(self))
