"""Dr.BoT: the bag of tricks that SPEAR is measured against (Qin et al. 2025, arXiv:2509.22601).

No KL penalty, a wider upper clip, a dual clip at 10, no division by deviation or length, malformed
and repetitive turns taken out of the loss, and only the three quarters of the tasks with the
largest deviation of returns.

Differs from the paper: malformed and repetitive turns leave the loss only where they gain. Taken
out everywhere, they are the one way to fail that is not punished, and the policy learns to write
no action. A turn that ran to its last token has no closing tag and so counts as malformed;
unreadable bytes are not looked for, since the batch holds tokens and no text; at least one task is
kept. ``paper()`` takes these turns out everywhere.

``released()`` divides by the longest row, which is a turn, and not by the number of episodes; a win
is worth 10; every turn is a row in the mean of a task, with 0.1 less if it is malformed; and there
is the entropy bonus of the code base. Not reproduced: before it takes means, the code drops rows at
random down to a power of two; turns taken out of the loss keep their entropy bonus in the code.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, Update
from agentgym.batch.batch import Batch
from agentgym.batch.turns import turns_of
from agentgym.credit.transforms import Transform, centre, chain, deviation_by
from agentgym.credit.weights import keep_only, mask_gains, mask_truncated, mean_over_tokens
from agentgym.losses.compose import Loss, add, scale, token_sum
from agentgym.losses.surrogates import entropy_bonus, policy_gradient
from agentgym.rollout.collect import independent
from agentgym.utils.bounds import above, at_least, within
from agentgym_trainers.drgrpo import default_divisor
from agentgym_trainers.grpo import GRPO


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


def bad_turns(batch: Batch) -> Bool[Tensor, " P"]:
    """Tokens of malformed and of repetitive turns."""
    return batch.mask & (~batch.parsed | repetitive(batch))


def good_turns(batch: Batch) -> Bool[Tensor, " P"]:
    """Tokens of all other turns."""
    return batch.mask & ~bad_turns(batch)


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
    """Bound on the loss of tokens with negative advantage, in units of |advantage|; unset: none."""
    task_keep_ratio: float = 0.75
    """Part of the tasks that is learned from."""
    divisor_tokens: int | None = None
    """Constant that divides the token sum. Unset: what an episode may write in this run, or per
    batch its longest completion."""
    token_sum_per: Literal["episode", "batch"] = "episode"
    """The constant divides the token sum of each episode, before their mean, or of the batch."""
    bad_turns: Literal["mask-gains", "mask"] = "mask-gains"
    """Malformed and repetitive turns leave the loss where they gain, or everywhere."""
    truncated_episodes: Literal["zero", "mask"] = "zero"
    """Episodes that a limit cut short: what follows is worth nothing, or they are not learned."""
    malformed_penalty: float = 0.0
    """Taken from the score of a turn without an action, with ``group_statistics: turns``; else from
    the return."""
    reward_scale: float = 1.0
    """Factor on all rewards."""
    group_statistics: Literal["episodes", "turns"] = "episodes"
    """What is one sample in the mean of a task."""
    entropy_coef: float = 0.0
    """Weight of an entropy bonus, per nat."""
    minibatches: int = 2
    """Optimiser steps per training step."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(2, self, "group_size")
        at_least(1, self, "divisor_tokens", "minibatches")
        within(0, 1, self, "clip_ratio_low", "task_keep_ratio")
        at_least(0, self, "clip_ratio_high", "entropy_coef", "malformed_penalty")
        above(0, self, "reward_scale")
        above(1, self, "dual_clip")

    @classmethod
    def paper(cls) -> DrBoT:
        """The paper's setting."""
        return cls(bad_turns="mask")

    @classmethod
    def released(cls) -> DrBoT:
        """The authors' code."""
        return cls(
            token_sum_per="batch",
            bad_turns="mask",
            malformed_penalty=0.1,
            reward_scale=10.0,
            group_statistics="turns",
            entropy_coef=0.001,
        )

    def weighting(self) -> Transform:
        """How much each token counts, before anything is left out."""
        return chain(mean_over_tokens(), *mask_truncated(self.truncated_episodes))

    def credit(self) -> Transform:
        """Credit assignment."""
        base = GRPO(
            scale_by_std=False,
            malformed_penalty=self.malformed_penalty,
            reward_scale=self.reward_scale,
            group_statistics=self.group_statistics,
        )
        return chain(
            base.shaping(),
            base.advantage(),
            self.weighting(),
            keep_only(lambda batch: highest_variance_tasks(batch, self.task_keep_ratio)),
            mask_gains(bad_turns) if self.bad_turns == "mask-gains" else keep_only(good_turns),
        )

    def summed(self, loss: Loss, run: RunInfo) -> Loss:
        """A loss as a sum over tokens, divided by the constant."""
        per_episode = self.token_sum_per == "episode"
        constant = self.divisor_tokens or default_divisor(run, per_episode=per_episode)
        return token_sum(loss, constant, per_episode=per_episode)

    def regularised(self, surrogate: Loss) -> Loss:
        """With the entropy bonus, where there is one."""
        bonus = scale(self.entropy_coef, entropy_bonus())
        return add(surrogate, bonus) if self.entropy_coef else surrogate

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        surrogate = policy_gradient(
            self.clip_ratio_low, self.clip_ratio_high, dual_clip=self.dual_clip
        )
        loss = self.summed(self.regularised(surrogate), run)
        return Algorithm(
            collect=independent(self.group_size),
            credit=self.credit(),
            updates=(Update(loss=loss, minibatches=self.minibatches),),
        )
