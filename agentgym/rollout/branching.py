"""Episodes of one task that branch: shared prefixes are played and sampled once.

A task yields exactly ``n`` episodes. Some start from the beginning (roots); the others fork off a
running episode and continue from the same environment state and the same tokens. All episodes of
a task advance in rounds: generate, decide which ones branch, step.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentgym.rollout.collect import Collect, EpisodePlayer, LiveEpisode, branching
from agentgym.types import Completion, Task, Trajectory
from agentgym.utils.concurrency import gather


class BranchPoint(NamedTuple):
    """The input of a branch rule."""

    completion: Completion
    """The one just sampled."""
    first: Completion
    """The first one of this path; of a fork, by default that of the path it was forked from."""
    streak: int
    """How often in a row this path has branched, as the ``StreakRule`` counts."""


class TreeStart(NamedTuple):
    """How a tree starts."""

    finished: tuple[Trajectory, ...]
    """Finished episodes that count among the ``n``; their samples are numbered from 0."""
    roots: int
    """Paths to start beside them."""


RootPlan = Callable[[Task, EpisodePlayer], Awaitable[TreeStart]]
"""How much of the budget of a task goes to episodes played from the beginning."""

BranchRule = Callable[[BranchPoint, np.random.Generator], bool]
"""Whether a path forks at a decision."""

StreakRule = Callable[[Sequence[int], Sequence[int]], list[int]]
"""The streaks of all paths and the number of forks each has just made, to the new streaks."""

Uncertainty = Callable[[Completion], float]
"""How uncertain the policy was about a completion, from the entropies of the engine."""

Round = Callable[["Tree"], Awaitable[None]]
"""One round of a tree: generate, step, and branch before the step or after it."""


def fixed_roots(count: int) -> RootPlan:
    """The same number of roots for every task."""

    async def start(task: Task, play: EpisodePlayer) -> TreeStart:
        return TreeStart((), count)

    return start


def streak_per_path(streaks: Sequence[int], forks: Sequence[int]) -> list[int]:
    """Each path has its own streak; it ends when the path does not branch."""
    return [streak + 1 if made else 0 for streak, made in zip(streaks, forks, strict=True)]


def mean_entropy(completion: Completion) -> float:
    """Mean over the tokens, in nats; 0 for an empty completion."""
    return sum(completion.entropies) / max(1, len(completion.entropies))


async def close_path(path: LiveEpisode, task: Task, play: EpisodePlayer) -> Trajectory:
    """Close a path; if the environment failed, play its episode again from the beginning."""
    played = await path.close()
    if played.stop.scored:
        return played
    return await play.play_reserved(task, played.sample, failed_attempts=(played.stop,))


async def branch_before_acting(tree: Tree) -> None:
    """Branch between completion and step: the fork samples this decision again."""
    await tree.generate()
    await tree.branch()
    await tree.step()


async def branch_after_acting(tree: Tree) -> None:
    """Branch after the step: the fork shares the decision and its outcome."""
    await tree.generate()
    await tree.step()
    await tree.branch()


def with_probability(probability: Callable[[BranchPoint], float]) -> BranchRule:
    """Fork with a probability."""
    return lambda point, rng: bool(rng.random() < probability(point))


def above_threshold(threshold: float, score: Callable[[BranchPoint], float]) -> BranchRule:
    """Fork where a score exceeds a threshold."""
    return lambda point, rng: score(point) > threshold


def grow_tree(
    n: int,
    roots: RootPlan,
    branch: BranchRule,
    *,
    width: int = 2,
    streaks: StreakRule = streak_per_path,
    order: Round = branch_before_acting,
    inherit_first: bool = True,
) -> Collect:
    """Collect ``n`` episodes per task as a tree.

    If all paths end before there are ``n``, the rest start from the beginning, side by side.

    Args:
        n: Episodes per task, at least 2.
        roots: How many start from the beginning.
        branch: Where the others fork off.
        width: Continuations of a path that branches, itself included.
        streaks: How consecutive branchings are counted.
        order: Whether a path branches before or after its step.
        inherit_first: The first completion of a fork is that of the path it was forked from;
            otherwise the first that it samples itself.
    """

    async def collect(task: Task, play: EpisodePlayer) -> list[Trajectory]:
        async with play.reserve(n) as reserved:
            finished, first = await roots(task, reserved)
            tree = Tree(
                task,
                reserved,
                n,
                branch,
                width,
                streaks,
                list(finished),
                used=len(finished),
                inherit_first=inherit_first,
            )
            await tree.start_roots(max(1, first))
            while tree.paths:
                await order(tree)
                await tree.collect_finished()
                if not tree.paths:
                    await tree.start_roots(n)
            return sorted(tree.finished, key=lambda trajectory: trajectory.sample)

    return branching(collect)


@dataclass
class _Path:
    episode: LiveEpisode
    completion: Completion | None = None
    first: Completion | None = None
    streak: int = 0


class Tree:
    """The running paths of one task."""

    def __init__(
        self,
        task: Task,
        play: EpisodePlayer,
        n: int,
        branch: BranchRule,
        width: int,
        streaks: StreakRule,
        finished: list[Trajectory],
        used: int,
        *,
        inherit_first: bool,
    ) -> None:
        self.task, self.play, self.n = task, play, n
        self.rule, self.width, self.streaks = branch, width, streaks
        self.finished, self.used = finished, used
        self.inherit_first = inherit_first
        self.paths: list[_Path] = []
        self.rng = play.rng(task, "branch")

    async def start_roots(self, count: int) -> None:
        """Start ``count`` paths from the beginning, or as many as the budget allows."""
        samples = range(self.used, min(self.n, self.used + count))
        started = await gather(self.play.begin(self.task, k) for k in samples)
        self.paths += [_Path(episode) for episode in started]
        self.used += len(started)
        await self.collect_finished()

    async def generate(self) -> None:
        """Sample a completion on every path."""
        completions = await gather(path.episode.generate() for path in self.paths)
        for path, completion in zip(self.paths, completions, strict=True):
            path.completion = completion
            path.first = path.first or completion

    async def step(self) -> None:
        """Execute the completion of every path; forks made since then have none."""
        await gather(path.episode.step() for path in self.paths)

    async def branch(self) -> None:
        """Fork the paths that the rule selects, in order, within the budget."""
        forks = [0] * len(self.paths)
        for k, path in enumerate(self.paths):
            if path.episode.done or path.completion is None or path.first is None:
                continue
            point = BranchPoint(path.completion, path.first, path.streak)
            wanted = sum(self.rule(point, self.rng) for _ in range(self.width - 1))
            forks[k] = min(wanted, self.n - self.used)
            self.used += forks[k]
        streaks = self.streaks([path.streak for path in self.paths], forks)
        samples = iter(range(self.used - sum(forks), self.used))
        forked = []
        for path, made, streak in zip(list(self.paths), forks, streaks, strict=True):
            path.streak = streak
            for _ in range(made):
                twin = await path.episode.fork(next(samples))
                first = path.first if self.inherit_first else None
                forked.append(_Path(twin, first=first, streak=streak))
        self.paths += forked

    async def collect_finished(self) -> None:
        """Move the finished paths to ``finished``."""
        done = [path for path in self.paths if path.episode.done]
        closing = (close_path(path.episode, self.task, self.play) for path in done)
        self.finished += await gather(closing)
        self.paths = [path for path in self.paths if not path.episode.done]
