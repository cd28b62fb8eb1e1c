"""Evaluating a model on a frozen panel of tasks, resumable at any point.

The file starts with a header (panel, model, settings); every further line is one finished episode.
Calling ``evaluate`` again on the same file plays the missing episodes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from agentgym.engines.stats import ChatUsage
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.cost import FREE, Cost, Prices
from agentgym.evaluation.files import open_file, read_file, usage_line
from agentgym.evaluation.record_files import append
from agentgym.evaluation.records import Decode, EpisodeRecord
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import gather
from agentgym.utils.jsonl import append_line

PlayEpisode = Callable[[Task, int], Awaitable[Trajectory]]
"""Plays one episode; the number is the sample index within the task and part of its seeds."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How an evaluation is carried out; changes no result."""

    concurrency: int = 64
    """Episodes in flight."""
    decode: Decode | None = None
    """Completion tokens to text, for the record."""
    progress: Callable[[int, int, str], None] | None = None
    """Called after every episode: episodes done, episodes in all, cost so far in words."""
    prices: Prices = FREE
    """Of tokens, for the cost."""
    usage: Callable[[], ChatUsage] | None = None
    """What a chat endpoint counted in this call: its own tokens. Kept in the file at the end."""


async def evaluate(
    panel: Panel,
    play: PlayEpisode,
    *,
    episodes: int,
    path: Path,
    spec: EvalSpec,
    options: EvalOptions | None = None,
) -> Report:
    """Play every task of a panel ``episodes`` times and report the success.

    Args:
        panel: The tasks.
        play: Plays one episode, including retries after environment errors.
        episodes: Episodes per task; at least the largest k of pass@k.
        path: One JSON line per episode. If it exists, only missing and unscored episodes are
            played.
        spec: What is evaluated, under which settings.
        options: Concurrency, decoding, progress.

    Returns:
        The report; it does not depend on the order in which episodes ended.

    Raises:
        ConfigError: The file belongs to another panel, model or settings; or ``episodes`` or
            the concurrency is below 1.
    """
    options = options or EvalOptions()
    if episodes < 1 or options.concurrency < 1:
        raise ConfigError(
            f"got episodes={episodes}, concurrency={options.concurrency}: each must be at least 1"
        )
    done = open_file(path, panel, spec)
    pairs = list(product(panel.tasks, range(episodes)))
    played = {record.key for record in done}
    missing = [pair for pair in pairs if pair not in played]
    wanted = [record for record in done if record.sample < episodes]
    usage = ChatUsage()
    if path.exists() and (earlier := read_file(path).usage) is not None:
        usage = earlier
    session = _Session(
        panel,
        play,
        path,
        options,
        done=len(pairs) - len(missing),
        total=len(pairs),
        cost=sum(map(Cost.of, wanted), Cost()),
        earlier=usage,
    )
    queue = iter(missing)
    try:
        await gather(session.work(queue) for _ in range(min(options.concurrency, len(missing))))
    finally:
        if options.usage is not None and missing:
            append_line(path, usage_line(options.usage()))
    report = Report.of(panel, spec, (found := read_file(path)).records, episodes=episodes)
    return replace(report, notes=found.notes, path=path, usage=found.usage)


@dataclass
class _Session:
    """The episodes of one call; its workers share one queue."""

    panel: Panel
    play: PlayEpisode
    path: Path
    options: EvalOptions
    done: int
    total: int
    cost: Cost
    earlier: ChatUsage
    """What a chat endpoint counted in earlier calls."""

    async def work(self, queue: Iterator[tuple[Task, int]]) -> None:
        for task, sample in queue:
            record = await self._play(task, sample)
            self.done += 1
            if record.stop.scored:
                self.cost += Cost.of(record)
            if self.options.progress is not None:
                self.options.progress(self.done, self.total, self._spent())

    def _spent(self) -> str:
        if self.options.usage is None:
            return self.cost.line(self.options.prices)
        usage = self.earlier.plus(self.options.usage())
        return self.cost.counted_by(usage).line(self.options.prices)

    async def _play(self, task: Task, sample: int) -> EpisodeRecord:
        start = time.perf_counter()
        trajectory = await self.play(task, sample)
        assert (trajectory.task, trajectory.sample) == (task, sample), (
            "play returned another episode"
        )
        record = EpisodeRecord.of(
            trajectory,
            seconds=time.perf_counter() - start,
            panel=self.panel.digest,
            decode=self.options.decode,
        )
        append(self.path, record)
        return record
