"""Dr.BoT: the bag of tricks that SPEAR is measured against (Qin et al. 2025, arXiv:2509.22601).

No KL penalty, a wider upper clip, a dual clip at 10, no division by deviation or length, malformed
and repetitive turns taken out of the loss, and only the three quarters of the tasks whose episodes
differ most.

Differs from the paper: a turn that ran to its last token has no closing tag and so counts as
malformed; unreadable bytes are not looked for, since the batch holds tokens and no text; at least
one task is kept.

``released()`` does not divide by the number of episodes, counts every turn in the mean of a task,
and has the entropy bonus that the code base brings along: a tenth of its 0.001, since a win is
worth 1 here and 10 there. Not reproduced: before it takes means, the code drops rows at random
down to a power of two; and it fines malformed turns 0.1 of 10.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.algorithm import About, Algorithm, Update
from agentgym.batch.batch import Batch
from agentgym.batch.turns import turns_of
from agentgym.credit.advantages import group_advantage_over_turns
from agentgym.credit.transforms import Transform, centre, chain, deviation_by, group_advantage
from agentgym.credit.weights import CONSTANT, divide_by_constant, keep_only, mask_truncated
from agentgym.losses.compose import add, scale, times_column
from agentgym.losses.surrogates import entropy_bonus, policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, within


def return_std(batch: Batch) -> Float[Tensor, " E"]:
    """Population standard deviation of the returns of each episode's task."""
    return deviation_by(centre(batch.reward, batch.group), batch.group, unbiased=False)


def highest_variance_tasks(batch: Batch, share: float) -> Bool[Tensor, " P"]:
    """Tokens of the ``share`` of tasks with the largest deviation of returns, at least one task."""
    spread = torch.zeros(int(batch.group.max()) + 1 if len(batch.group) else 0)
    spread[batch.group] = return_std(batch).to(spread)
    tasks = torch.unique(batch.group)
    order = tasks[spread[tasks].argsort(descending=True, stable=True)]
    return torch.isin(batch.group, order[: max(1, int(share * len(order)))])[batch.episode_of_token]


def repetitive(batch: Batch, span: int = 20, count: int = 10) -> Bool[Tensor, " P"]:
    """Tokens of turns in which some run of ``span`` tokens occurs at least ``count`` times."""
    turns = turns_of(batch)
    found = torch.zeros(len(turns.length), dtype=torch.bool)
    for turn in (turns.length >= span + count - 1).nonzero().squeeze(-1).tolist():
        tokens = batch.tokens[turns.at[turns.turn == turn]].tolist()
        runs = Counter(tuple(tokens[i : i + span]) for i in range(len(tokens) - span + 1))
        found[turn] = max(runs.values()) >= count
    return turns.spread(found, batch)


@dataclass(frozen=True, kw_only=True)
class DrBoT:
    """A bag of tricks on top of Dr.GRPO."""

    about: ClassVar[About] = About(
        "2509.22601",
        "n episodes side by side",
        "return minus the mean of the task; bad turns and even tasks left out",
        "surrogate with a wider upper clip and a dual clip",
    )

    group_size: int = 8
    """Episodes per task."""
    clip_ratio_low: float = 0.2
    """How far the token ratio may fall below 1."""
    clip_ratio_high: float = 0.28
    """How far it may rise above 1."""
    dual_clip: float | None = 10.0
    """Bound on the loss of a bad token that became likelier, in advantages; unset: none."""
    task_keep_ratio: float = 0.75
    """Part of the tasks that is learned from."""
    max_episode_tokens: int = 1600
    """Constant divisor of a sum over tokens."""
    token_sum_per: Literal["episode", "batch"] = "episode"
    """The constant divides the token sum of each episode, before their mean, or of the batch."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What counts once in the mean of a task."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    minibatches: int = 4
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "max_episode_tokens", "minibatches")
        within(0, 1, self, "clip_ratio_low", "task_keep_ratio")
        at_least(0, self, "clip_ratio_high", "entropy_coef")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> DrBoT:
        """The paper's setting."""
        return cls()

    @classmethod
    def released(cls) -> DrBoT:
        """The authors' code."""
        return cls(token_sum_per="batch", group_statistics="turns", entropy_coef=1e-4)

    def weighting(self) -> Transform:
        """How much each token counts, before anything is left out."""
        constant = divide_by_constant(
            self.max_episode_tokens, per_episode=self.token_sum_per == "episode"
        )
        return chain(constant, *mask_truncated(self.truncated_episodes))

    def credit(self) -> Transform:
        """Credit assignment."""
        advantage = {"episodes": group_advantage, "turns": group_advantage_over_turns}
        return chain(
            advantage[self.group_statistics](scale=False),
            self.weighting(),
            keep_only(lambda batch: highest_variance_tasks(batch, self.task_keep_ratio)),
            keep_only(lambda batch: batch.parsed & ~repetitive(batch)),
        )

    def build(self) -> Algorithm:
        """Compose it."""
        loss = policy_gradient(self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip)
        if self.entropy_coef:
            loss = add(loss, scale(self.entropy_coef, entropy_bonus()))
        return Algorithm(
            collect=independent(self.group_size),
            credit=self.credit(),
            updates=(Update(loss=times_column(CONSTANT, loss), minibatches=self.minibatches),),
        )
