"""Evaluating a model on a frozen panel of tasks, resumable at any point.

The file starts with a header (panel, model, settings); every further line is one finished episode.
Calling ``evaluate`` again on the same file plays the missing episodes.
"""

from __future__ import annotations

import hashlib
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
from agentgym.utils.concurrency import gather
from agentgym.utils.jsonl import append_line, dumps, read_objects

PlayEpisode = Callable[[Task, int], Awaitable[Trajectory]]
"""Plays one episode; the number is the sample index within the task and part of its seeds."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """How an evaluation is carried out; changes no result."""

    concurrency: int = 64
    """Episodes in flight."""
    decode: Decode | None = None
    """Completion tokens to text, for the record."""
    progress: Progress | None = None
    """Called after every episode."""


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
    done = _open(path, panel, spec)
    pairs = list(product(panel.tasks, range(episodes)))
    missing = [pair for pair in pairs if pair not in done]
    session = _Session(panel, play, path, options, len(pairs) - len(missing), len(pairs))
    queue = iter(missing)
    await gather(session.work(queue) for _ in range(min(options.concurrency, len(missing))))
    return Report.of(panel, spec, read_episodes(path), episodes=episodes)


def default_path(panel: Panel, spec: EvalSpec) -> Path:
    """The file of an evaluation that names none; the same panel, model and settings give the same.

    Examples:
        >>> str(default_path(Panel("agentgym/Hotter-v0", "test", ()), EvalSpec("m")))
        'evals/hotter-test-776e4cbf.jsonl'
    """
    content = dumps(
        {
            "panel": panel.digest,
            "model": spec.model,
            "settings": dict(sorted(spec.settings.items())),
        }
    )
    digest = hashlib.blake2b(content.encode(), digest_size=4).hexdigest()
    name = panel.env.rpartition("/")[2].rpartition(":")[2].rpartition("-v")
    return Path("evals") / f"{(name[0] or name[2]).lower()}-{panel.split}-{digest}.jsonl"


def read_report(path: Path) -> Report:
    """The report of an evaluation file, finished or not.

    Raises:
        ConfigError: There is no such file, or it is not an evaluation file.
    """
    if not path.exists():
        raise ConfigError(f"no evaluation file at {path}")
    panel, spec = _read_header(path)
    records = read_episodes(path)
    episodes = 1 + max((record.sample for record in records), default=0)
    return Report.of(panel, spec, records, episodes=episodes)


@dataclass
class _Session:
    """The episodes of one call; its workers share one queue."""

    panel: Panel
    play: PlayEpisode
    path: Path
    options: EvalOptions
    done: int
    total: int

    async def work(self, queue: Iterator[tuple[Task, int]]) -> None:
        for task, sample in queue:
            await self._play(task, sample)
            self.done += 1
            if self.options.progress is not None:
                self.options.progress(self.done, self.total)

    async def _play(self, task: Task, sample: int) -> None:
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


def _open(path: Path, panel: Panel, spec: EvalSpec) -> set[tuple[Task, int]]:
    """Episodes that are already scored; a new file gets its header."""
    header = dumps({"header": _header(panel, spec)})
    if not path.exists() or b"\n" not in path.read_bytes():
        append_line(path, header)
        return set()
    found, played_by = _read_header(path)
    changes = list(_changes(found, played_by, panel, spec))
    if changes:
        raise ConfigError(
            f"{path} holds another evaluation: {'; '.join(changes)}. Choose another file"
        )
    return {record.key for record in read_episodes(path) if record.stop.scored}


def _header(panel: Panel, spec: EvalSpec) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "env": panel.env,
        "split": panel.split,
        "panel": panel.digest,
        "tasks": [[task.id, task.seed] for task in panel.tasks],
        "model": spec.model,
        "name": spec.name,
        "settings": dict(sorted(spec.settings.items())),
    }


def _read_header(path: Path) -> tuple[Panel, EvalSpec]:
    first = next(read_objects(path), {})
    header = first.get("header")
    if header is None or header["schema"] != SCHEMA:
        raise ConfigError(
            f"{path} is not an evaluation file of schema {SCHEMA}: "
            f"the header is missing or of another version"
        )
    tasks = tuple(Task(header["env"], id_, seed) for id_, seed in header["tasks"])
    panel = Panel(header["env"], header["split"], tasks)
    if panel.digest != header["panel"]:
        raise ConfigError(
            f"{path} was altered: its tasks do not match the panel digest in its header"
        )
    return panel, EvalSpec(header["model"], header["settings"], header["name"])


def _changes(old: Panel, who: EvalSpec, new: Panel, now: EvalSpec) -> Iterator[str]:
    """Differences between the evaluation in the file and the requested one."""
    if old != new:
        yield f"its panel is {_name(old)}, requested {_name(new)}"
    if who.model != now.model:
        yield f"its model is {who.model!r}, requested {now.model!r}"
    for name in sorted(who.settings.keys() | now.settings.keys()):
        first, second = (side.settings.get(name, "absent") for side in (who, now))
        if first != second:
            yield f"its {name} is {first!r}, requested {second!r}"


def _name(panel: Panel) -> str:
    return f"{panel.env} {panel.split} ({len(panel)} tasks, {panel.digest[:12]})"
