"""Episodes of one task that branch: what they share of the world and of the text is made once.

A task is worth exactly ``n`` episodes. Some begin at the start (roots); the others fork off one
that is under way and go on from the same state of the world and the same tokens. All paths of a
task take their turns side by side: write, decide who branches, act.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentgym.rollout.collect import Collect, EpisodePlayer, LiveEpisode
from agentgym.types import Completion, Task, Trajectory
from agentgym.utils.concurrency import together


class Decision(NamedTuple):
    """What is known when it is decided whether a path branches."""

    completion: Completion
    """Just written."""
    first: Completion
    """The first one of this path, or of the path it was forked from."""
    streak: int
    """How often in a row it has branched, as ``Count`` counts."""


class Start(NamedTuple):
    """How a tree begins."""

    played: tuple[Trajectory, ...]
    """Finished episodes that count among the ``n``; their samples are numbered from 0."""
    roots: int
    """Paths to begin beside them."""


Roots = Callable[[Task, EpisodePlayer], Awaitable[Start]]
"""How much of a task's budget goes to whole episodes."""

Branch = Callable[[Decision, np.random.Generator], bool]
"""Whether a path forks at a decision."""

Count = Callable[[Sequence[int], Sequence[int]], list[int]]
"""Streaks of a task's paths, and forks each has just made, to the new streaks."""

Measure = Callable[[Completion], float]
"""How uncertain the policy was of a completion, from the engine's entropies."""

Spot = Callable[["Tree"], Awaitable[None]]
"""One round of a tree: write, act, and branch before acting or after it."""


def fixed(count: int) -> Roots:
    """The same number of roots for every task."""

    async def start(task: Task, play: EpisodePlayer) -> Start:
        return Start((), count)

    return start


def by_path(streaks: Sequence[int], forks: Sequence[int]) -> list[int]:
    """Each path has its own streak, which ends when it does not branch."""
    return [streak + 1 if made else 0 for streak, made in zip(streaks, forks, strict=True)]


def mean_entropy(completion: Completion) -> float:
    """Mean over the tokens, in nats; 0 for an empty completion."""
    return sum(completion.entropies) / max(1, len(completion.entropies))


async def ended(path: LiveEpisode, task: Task, play: EpisodePlayer) -> Trajectory:
    """Close a path; one that its world's breaking spoilt is played anew from the start."""
    played = await path.close()
    if played.stop.scored:
        return played
    return await play.whole(task, played.sample, spoilt=(played.stop,))


async def undecided(tree: Tree) -> None:
    """Branch where a decision has been written but not carried out: the fork decides anew."""
    await tree.think()
    await tree.branch()
    await tree.act()


async def decided(tree: Tree) -> None:
    """Branch after the world has answered: the fork shares the decision and its outcome."""
    await tree.think()
    await tree.act()
    await tree.branch()


def chance(probability: Callable[[Decision], float]) -> Branch:
    """Fork with a probability."""
    return lambda decision, rng: bool(rng.random() < probability(decision))


def beyond(threshold: float, score: Callable[[Decision], float]) -> Branch:
    """Fork where a score exceeds a threshold."""
    return lambda decision, rng: score(decision) > threshold


def grow_tree(
    n: int,
    roots: Roots,
    branch: Branch,
    *,
    width: int = 2,
    count: Count = by_path,
    spot: Spot = undecided,
) -> Collect:
    """Collect ``n`` episodes per task as a tree.

    When all paths have ended before there are ``n``, the rest begin at the start, side by side.

    Args:
        n: Episodes per task, at least 2.
        roots: How many begin at the start.
        branch: Where the others fork off.
        width: Ways in which a path goes on where it branches, itself included.
        count: How branchings in a row are counted.
        spot: Whether a fork comes before or after its decision is carried out.
    """

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        async with play.seats(n) as seated:
            played, first = await roots(task, seated)
            tree = Tree(task, seated, n, branch, width, count, list(played), len(played))
            await tree.plant(max(1, first))
            while tree.limbs:
                await spot(tree)
                await tree.prune()
                if not tree.limbs:
                    await tree.plant(n)
            return sorted(tree.finished, key=lambda trajectory: trajectory.sample)

    return collect


@dataclass
class _Limb:
    path: LiveEpisode
    written: Completion | None = None
    first: Completion | None = None
    streak: int = 0


class Tree:
    """The paths of one task while they are played."""

    def __init__(
        self,
        task: Task,
        play: EpisodePlayer,
        n: int,
        branch: Branch,
        width: int,
        count: Count,
        finished: list[Trajectory],
        used: int,
    ) -> None:
        self.task, self.play, self.n = task, play, n
        self.rule, self.width, self.count = branch, width, count
        self.finished, self.used = finished, used
        self.limbs: list[_Limb] = []
        self.rng = play.rng(task, "branch")

    async def plant(self, roots: int) -> None:
        """Begin paths at the start, as many as wanted and the budget allows."""
        fresh = range(self.used, min(self.n, self.used + roots))
        begun = await together(self.play.begin(self.task, k) for k in fresh)
        self.limbs += [_Limb(path) for path in begun]
        self.used += len(begun)
        await self.prune()

    async def think(self) -> None:
        """Every path writes."""
        written = await together(limb.path.think() for limb in self.limbs)
        for limb, completion in zip(self.limbs, written, strict=True):
            limb.written = completion
            limb.first = limb.first or completion

    async def act(self) -> None:
        """Every path carries out what it wrote; forks made since then have written nothing."""
        await together(limb.path.act() for limb in self.limbs)

    async def branch(self) -> None:
        """Fork the paths that should, in order, while there is budget."""
        forks = [0] * len(self.limbs)
        for k, limb in enumerate(self.limbs):
            if limb.path.over or limb.written is None or limb.first is None:
                continue
            decision = Decision(limb.written, limb.first, limb.streak)
            wanted = sum(self.rule(decision, self.rng) for _ in range(self.width - 1))
            forks[k] = min(wanted, self.n - self.used)
            self.used += forks[k]
        streaks = self.count([limb.streak for limb in self.limbs], forks)
        numbers = iter(range(self.used - sum(forks), self.used))
        sprouts = []
        for limb, made, streak in zip(list(self.limbs), forks, streaks, strict=True):
            limb.streak = streak
            for _ in range(made):
                twin = await limb.path.fork(next(numbers))
                sprouts.append(_Limb(twin, first=limb.first, streak=streak))
        self.limbs += sprouts

    async def prune(self) -> None:
        """Put the finished paths aside."""
        over = [limb for limb in self.limbs if limb.path.over]
        closing = (ended(limb.path, self.task, self.play) for limb in over)
        self.finished += await together(closing)
        self.limbs = [limb for limb in self.limbs if not limb.path.over]
