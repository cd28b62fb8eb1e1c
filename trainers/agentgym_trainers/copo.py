"""COPO: where episodes agree, compare tasks instead (2025, arXiv:2508.04138).

Beside the advantage within a task there is one between tasks: a task's return is its share of wins,
less the less its episodes agree, centred and scaled over the tasks of the batch. With Hc the
entropy in bits of how the task's episodes ended, ``w = sigmoid(sharpness (Hc - middle))`` of the
loss is of the advantage within, and ``1 - w`` of the one between: a group that always fails alike
has none within and is still taught. These are two losses on one ratio; mixing the advantages
instead would be another method wherever the clip is at work.

Differs from the paper: an answer is the ending of an episode, its last action and the environment's
answer to it; episodes that a limit cut short are not among the answers; a batch of one task has no
advantage between. ``released()`` leaves agreement out of a task's return. Tasks are compared with
one another, so their rewards must be of one scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo
from agentgym.batch.batch import Batch, episode_mean
from agentgym.credit.transforms import Transform, chain, group_mean, stateless
from agentgym.credit.weights import mask_truncated
from agentgym.losses.compose import add, times_column, with_advantage
from agentgym.losses.surrogates import policy_gradient
from agentgym.utils.bounds import above, finite
from agentgym_trainers.empo import disagreement
from agentgym_trainers.grpo import GRPO

BETWEEN = "copo/between"
"""Private column: advantage between tasks."""
INNER = "copo/inner"
"""Private column: share of the loss that is of the advantage within the task."""
OUTER = "copo/outer"
"""Private column: share that is of the advantage between tasks."""


TaskReturn = Callable[[Batch], Float[Tensor, " E"]]
"""What each episode's task returns."""


def bits(batch: Batch) -> Float[Tensor, " E"]:
    """Entropy of how each task's episodes ended, in bits."""
    return disagreement(batch) / torch.log(batch.reward.new_tensor(2.0))


def share_won(batch: Batch) -> Float[Tensor, " E"]:
    """Share of each task's episodes that were won."""
    return group_mean(batch.won.to(batch.reward), batch)


def share_won_alike(batch: Batch) -> Float[Tensor, " E"]:
    """Share of each task's episodes that were won, of which agreement keeps up to all.

    ``1 - lambda Hc`` with ``lambda = (1 - 1/n) / log2 n``: 1 for unanimity, 1/n for no two alike.
    """
    wins = share_won(batch)
    size = torch.bincount(batch.group)[batch.group].to(wins)
    rate = (1 - 1 / size) / size.log2().clamp(min=1e-12)
    return wins * torch.where(size > 1, 1 - rate * bits(batch), torch.ones_like(wins))


def between_tasks(value: Float[Tensor, " E"], batch: Batch) -> Float[Tensor, " E"]:
    """A per-task value, centred and scaled over the tasks of the batch; 0 for a single task."""
    tasks = torch.unique(batch.group)
    if len(tasks) < 2:
        return torch.zeros_like(value)
    by_task = value.new_zeros(int(tasks.max()) + 1).index_put((batch.group,), value)[tasks]
    return (value - by_task.mean()) / (by_task.std() + 1e-6)


def compare_tasks(sharpness: float, middle: float, returns: TaskReturn) -> Transform:
    """Write the advantage between tasks, of what ``returns`` gives for each, and both shares."""

    def apply(batch: Batch) -> Batch:
        advantage = between_tasks(returns(batch), batch)
        inner = (sharpness * (bits(batch) - middle)).sigmoid()
        columns = {BETWEEN: advantage, INNER: inner, OUTER: 1 - inner}
        return batch.with_(
            **{
                name: (value[batch.episode_of_token] * batch.mask)
                for name, value in columns.items()
            }
        )

    return stateless(apply, writes={BETWEEN, INNER, OUTER})


def weigh_either() -> Transform:
    """Every episode that has an advantage, within or between, counts the same."""

    def apply(batch: Batch) -> Batch:
        some = (batch.advantage != 0) | (batch.extra[BETWEEN] != 0)
        return batch.with_(weight=episode_mean(batch, batch.mask & some))

    return stateless(apply, reads={BETWEEN})


@dataclass(frozen=True, kw_only=True)
class COPO:
    """Consistency-aware policy optimisation: GRPO, and a comparison of tasks where it is silent."""

    about: ClassVar[About] = About(
        "2508.04138",
        "n episodes side by side",
        "return, centred and scaled within the task; and that of the task among tasks",
        "two clipped surrogates, shared by how far the episodes of a task agree",
    )

    base: GRPO = field(default_factory=GRPO)
    """Method that gives the advantage within the task and the clip."""
    gate_sharpness: float = 5.0
    """How fast the loss goes over from one advantage to the other, per bit."""
    gate_midpoint: float = 1.0
    """Entropy of endings at which both have half, in bits."""
    task_return: Literal["won-alike", "won"] = "won-alike"
    """What a task returns: its share of wins, less the less its episodes agree, or as it is."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        above(0, self, "gate_sharpness")
        finite(self, "gate_midpoint")

    @classmethod
    def paper(cls) -> COPO:
        """The paper's setting."""
        return cls(base=GRPO(group_size=6, clip_ratio_high=0.2, dual_clip=3.0))

    @classmethod
    def released(cls) -> COPO:
        """The authors' code, as its script runs it."""
        return cls(base=GRPO(group_size=6, clip_ratio_high=0.2, dual_clip=3.0), task_return="won")

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        base = self.base
        surrogate = policy_gradient(
            base.clip_ratio_low, base.clip_ratio_high, dual_clip=base.dual_clip
        )
        returns = {"won-alike": share_won_alike, "won": share_won}[self.task_return]
        comparing = compare_tasks(self.gate_sharpness, self.gate_midpoint, returns)
        either = chain(weigh_either(), *mask_truncated(base.truncated_episodes))
        weighting = either if base.loss_aggregation == "episode-mean" else base.weighting()
        return base.compose(
            add(
                times_column(INNER, surrogate),
                times_column(OUTER, with_advantage(BETWEEN, surrogate)),
            ),
            credit=chain(comparing, weighting),
        )
