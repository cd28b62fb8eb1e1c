"""ETMR: branch from the peaks of finished episodes, of ETTRL (2025, arXiv:2508.11356).

A task begins with ``roots`` episodes. From the ``peaks`` most uncertain turns of each, ``width``
other episodes continue, so it is worth ``roots * (1 + peaks * width)``; with peaks in the middle
that costs ``(1 + peaks * width / 2) / (1 + peaks * width)`` of the tokens. The paper has no
reference answer and uses the majority of the endings. The other half of the method is ``ear.py``.

Which turns are peaks is known only at the end, so a fork is kept at each turn that is among the
most uncertain so far, and given up when it no longer is; nothing is played or written twice. An
episode with too few turns leaves its share to episodes that begin at the start.

Differs from the paper: branches begin at turns, by the mean entropy of a turn, not at tokens; a
prefix counts once in the loss, in the episode that wrote it; rewards are the environment's, and the
branches do not make the majority alone decide. ``paper()`` has 12 roots, 2 peaks and 2 branches,
counts every copy of a prefix, and rewards the majority. There is no official code: ``released()``
is the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Bool
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, RunInfo, extend
from agentgym.batch.batch import Batch
from agentgym.credit.reward_shaping import add_episode_reward
from agentgym.credit.transforms import Transform, stateless
from agentgym.credit.weights import keep_only
from agentgym.errors import ImpossibleValue
from agentgym.rollout.branching import close_path, mean_entropy
from agentgym.rollout.collect import Collect, EpisodePlayer, LiveEpisode, branching
from agentgym.types import Task, Trajectory
from agentgym.utils.bounds import at_least
from agentgym.utils.concurrency import gather
from agentgym_trainers.empo import agreement
from agentgym_trainers.grpo import GRPO


class TreeShape(NamedTuple):
    """How a task's budget is spread."""

    roots: int
    peaks: int
    width: int

    @property
    def leaves(self) -> int:
        """Episodes of a task."""
        return self.roots * (1 + self.peaks * self.width)

    @property
    def cost(self) -> float:
        """Tokens beside so many whole episodes, with peaks in the middle on average."""
        branches = self.peaks * self.width
        return (1 + branches / 2) / (1 + branches)


class _Peak(NamedTuple):
    height: float
    number: int
    fork: LiveEpisode


async def climb(path: LiveEpisode, most: int, numbers: Iterator[int]) -> list[LiveEpisode]:
    """Play a path until it is over; forks before its ``most`` most uncertain turns, by number.

    Args:
        path: Under way, nothing pending.
        most: Forks to keep, the earlier of equal ones first.
        numbers: Samples of the forks; one that replaces another takes over its number.
    """
    held: list[_Peak] = []
    while not path.done:
        written = await path.generate()
        if written is not None and most:
            height = mean_entropy(written)
            number = next(numbers) if len(held) < most else None
            lowest = min(held, key=lambda peak: peak.height, default=None)
            if number is None and lowest is not None and height > lowest.height:
                held.remove(lowest)
                await lowest.fork.discard()
                number = lowest.number
            if number is not None:
                held.append(_Peak(height, number, await path.fork(number)))
        await path.step()
    return [peak.fork for peak in sorted(held, key=lambda peak: peak.number)]


async def finish(path: LiveEpisode, task: Task, play: EpisodePlayer) -> Trajectory:
    """Play a path to its end."""
    while not path.done:
        await path.generate()
        await path.step()
    return await close_path(path, task, play)


def from_peaks(shape: TreeShape) -> Collect:
    """Collect ``shape.leaves`` episodes per task; those from one peak are numbered together."""
    each = shape.peaks * shape.width

    def number(root: int, branch: int) -> int:
        return shape.roots + root * each + branch

    async def grow(task: Task, play: EpisodePlayer, root: int) -> list[Trajectory]:
        path = await play.begin(task, root)
        first = iter(range(number(root, 0), number(root + 1, 0), shape.width))
        forks = await climb(path, shape.peaks, first)
        paths = list(forks)
        for place, fork in enumerate(forks):
            beside = range(place * shape.width + 1, (place + 1) * shape.width)
            paths += [await fork.fork(number(root, k)) for k in beside]
        for k in range(len(forks) * shape.width, each):
            paths.append(await play.begin(task, number(root, k)))
        return await gather(finish(each, task, play) for each in (path, *paths))

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        async with play.reserve(shape.leaves) as seated:
            grown = await gather(grow(task, seated, root) for root in range(shape.roots))
        return sorted((t for tree in grown for t in tree), key=lambda t: t.sample)

    return branching(collect)


def own(batch: Batch) -> Bool[Tensor, " P"]:
    """Tokens that the episode wrote itself, not the one it was forked from."""
    return ~batch.shared


def reward_majority() -> Transform:
    """Replace the reward: 1 for the most frequent ending of the task, 0 for all others.

    Where several are as frequent, all of them count; an episode cut short by a limit earns nothing.
    """

    def apply(batch: Batch) -> Batch:
        share = agreement(batch)
        size = int(batch.group.max()) + 1 if len(batch.group) else 0
        most = share.new_zeros(size).scatter_reduce(0, batch.group, share, "amax")[batch.group]
        right = ((share == most) & (share > 0)).to(batch.reward)
        return add_episode_reward(batch, right - batch.reward)

    return stateless(apply)


@dataclass(frozen=True, kw_only=True)
class ETMR:
    """Entropy-fork tree majority rollout, on GRPO."""

    about: ClassVar[About] = About(
        "2508.11356",
        "a few whole episodes, the others forked at the peaks of their uncertainty",
        "its base's; a prefix counts once",
        "its base's",
    )

    base: GRPO = field(default_factory=lambda: GRPO(group_size=9))
    """Method that gives credit and loss; its group size is the budget of a task."""
    initial_rollouts: int = 3
    """Episodes that begin at the start."""
    peaks_per_root: int = 1
    """Turns of each from which others continue."""
    branches_per_peak: int = 2
    """Episodes that continue from each."""
    prefix_loss: Literal["once", "every"] = "once"
    """Whether copies of a prefix count in the loss."""
    label_source: Literal["world", "majority"] = "world"
    """Source of the label: the environment's reward, or the majority of the endings."""

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        at_least(1, self, "initial_rollouts", "branches_per_peak")
        at_least(0, self, "peaks_per_root")
        if self.shape.leaves != self.base.group_size:
            raise ImpossibleValue(
                f"ETMR.initial_rollouts * (1 + peaks_per_root * branches_per_peak) is "
                f"{self.shape.leaves}, expected the budget of a task, base.group_size "
                f"({self.base.group_size})"
            )

    @property
    def shape(self) -> TreeShape:
        """How the budget is spread."""
        return TreeShape(self.initial_rollouts, self.peaks_per_root, self.branches_per_peak)

    @classmethod
    def paper(cls) -> ETMR:
        """The paper's setting."""
        return cls(
            base=GRPO(group_size=60, clip_ratio_high=0.2, loss_aggregation="token-mean"),
            initial_rollouts=12,
            peaks_per_root=2,
            prefix_loss="every",
            label_source="majority",
        )

    @classmethod
    def released(cls) -> ETMR:
        """There is no official code: the paper."""
        return cls.paper()

    def build(self, run: RunInfo = DEFAULT_RUN) -> Algorithm:
        """Compose it."""
        whole = extend(
            self.base.build(run),
            reward=reward_majority() if self.label_source == "majority" else None,
            credit=keep_only(own) if self.prefix_loss == "once" else None,
        )
        return replace(whole, collect=from_peaks(self.shape))
