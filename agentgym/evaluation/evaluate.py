"""Playing a fixed panel of tasks to the end, however often that is interrupted.

The file starts with a header that says what was played by whom; every line after it is one
episode, added when it ends. Calling ``evaluate`` again on the file plays what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from agentgym.env.base import Progress
from agentgym.env.panel import Panel
from agentgym.errors import ConfigError
from agentgym.evaluation.records import SCHEMA, Decode, EpisodeRecord, append, read_episodes
from agentgym.evaluation.report import EvalSpec, Report
from agentgym.types import Task, Trajectory
from agentgym.utils.concurrency import together
from agentgym.utils.jsonl import append_line, dumps, read_objects

PlayEpisode = Callable[[Task, int], Awaitable[Trajectory]]
"""Plays one episode; the number tells the episodes of one task apart and seeds its draws."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How an evaluation is carried out; changes no result."""

    concurrency: int = 64
    """Episodes in flight."""
    decode: Decode | None = None
    """Completion tokens to text, for the record."""
    progress: Progress | None = None
    """Told after every episode."""


async def evaluate(
    panel: Panel,
    play: PlayEpisode,
    *,
    episodes: int,
    path: Path,
    subject: EvalSpec,
    conduct: EvalOptions | None = None,
) -> Report:
    """Play every task of a panel ``episodes`` times and report the success.

    Args:
        panel: The tasks.
        play: Plays one episode, and tries again itself where a world's breaking spoils it.
        episodes: Episodes per task; at least the largest k of pass@k that is wanted.
        path: One JSON line per episode. If it exists, only missing episodes are played, and
            those that a world's breaking spoilt to the last are tried again.
        subject: Who plays, under which settings.
        conduct: How to go about it.

    Returns:
        The same report for the same episodes, whatever order they ended in.

    Raises:
        ConfigError: The file belongs to another panel, model or settings; or ``episodes`` or
            the concurrency is below 1.
    """
    conduct = conduct or EvalOptions()
    if episodes < 1 or conduct.concurrency < 1:
        raise ConfigError(
            f"got episodes={episodes}, concurrency={conduct.concurrency}: each must be at least 1"
        )
    done = _open(path, panel, subject)
    pairs = list(product(panel.tasks, range(episodes)))
    missing = [pair for pair in pairs if pair not in done]
    session = _Session(panel, play, path, conduct, len(pairs) - len(missing), len(pairs))
    queue = iter(missing)
    await together(session.work(queue) for _ in range(min(conduct.concurrency, len(missing))))
    return Report.of(panel, subject, read_episodes(path), episodes=episodes)


def read_report(path: Path) -> Report:
    """The report of an evaluation file, finished or not.

    Raises:
        ConfigError: There is no such file, or it is no evaluation.
    """
    if not path.exists():
        raise ConfigError(f"no evaluation at {path}")
    panel, subject = _read_header(path)
    records = read_episodes(path)
    episodes = 1 + max((record.sample for record in records), default=0)
    return Report.of(panel, subject, records, episodes=episodes)


@dataclass
class _Session:
    """The episodes of one call; its workers share one queue."""

    panel: Panel
    play: PlayEpisode
    path: Path
    conduct: EvalOptions
    done: int
    total: int

    async def work(self, queue: Iterator[tuple[Task, int]]) -> None:
        for task, sample in queue:
            await self._play(task, sample)
            self.done += 1
            if self.conduct.progress is not None:
                self.conduct.progress(self.done, self.total)

    async def _play(self, task: Task, sample: int) -> None:
        start = time.perf_counter()
        trajectory = await self.play(task, sample)
        assert (trajectory.task, trajectory.sample) == (task, sample), "play answered another task"
        record = EpisodeRecord.of(
            trajectory,
            seconds=time.perf_counter() - start,
            panel=self.panel.digest,
            decode=self.conduct.decode,
        )
        append(self.path, record)


def _open(path: Path, panel: Panel, subject: EvalSpec) -> set[tuple[Task, int]]:
    """The episodes that need not be played; a new file gets its header."""
    header = dumps({"header": _header(panel, subject)})
    if not path.exists() or b"\n" not in path.read_bytes():
        append_line(path, header)
        return set()
    found, played_by = _read_header(path)
    changes = list(_changes(found, played_by, panel, subject))
    if changes:
        raise ConfigError(
            f"{path} holds another evaluation: {'; '.join(changes)}. Choose another file"
        )
    return {record.key for record in read_episodes(path) if record.stop.scored}


def _header(panel: Panel, subject: EvalSpec) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "env": panel.env,
        "split": panel.split,
        "panel": panel.digest,
        "tasks": [[task.id, task.seed] for task in panel.tasks],
        "model": subject.model,
        "settings": dict(sorted(subject.settings.items())),
    }


def _read_header(path: Path) -> tuple[Panel, EvalSpec]:
    first = next(read_objects(path), {})
    header = first.get("header")
    if header is None or header["schema"] != SCHEMA:
        raise ConfigError(f"{path} is no evaluation file of schema {SCHEMA}: it lacks the header")
    tasks = tuple(Task(header["env"], id_, seed) for id_, seed in header["tasks"])
    panel = Panel(header["env"], header["split"], tasks)
    if panel.digest != header["panel"]:
        raise ConfigError(f"{path} was altered: its tasks do not have the digest it states")
    return panel, EvalSpec(header["model"], header["settings"])


def _changes(old: Panel, who: EvalSpec, new: Panel, now: EvalSpec) -> Iterator[str]:
    """What differs between the evaluation in a file and the one asked for."""
    if old != new:
        yield f"its panel is {_name(old)}, asked for {_name(new)}"
    if who.model != now.model:
        yield f"its model is {who.model!r}, asked for {now.model!r}"
    for name in sorted(who.settings.keys() | now.settings.keys()):
        first, second = (side.settings.get(name, "absent") for side in (who, now))
        if first != second:
            yield f"its {name} is {first!r}, asked for {second!r}"


def _name(panel: Panel) -> str:
    return f"{panel.env} {panel.split} ({len(panel)} tasks, {panel.digest[:12]})"
