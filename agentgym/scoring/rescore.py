"""Stored episodes under another scorer: a new file beside the old one."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import LeftOut, append, valid_episodes
from agentgym.evaluation.records import EpisodeRecord, Rescoring
from agentgym.scoring.agreement import Agreement, agreement
from agentgym.scoring.scorer import Score, Scorer, Unscored
from agentgym.utils.concurrency import gather
from agentgym.utils.jsonl import append_line, dumps, read_objects, write_lines

Progress = Callable[[int, int], None]
"""Called with the number of episodes done and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """What came of it."""

    path: Path
    """The new file."""
    scored: int
    """Episodes in it that the scorer has scored."""
    unscored: tuple[str, ...]
    """Why the others are not in it, one line each; the same call asks for them again."""
    broken: int
    """Episodes that the environment has not scored; they are in the file as they were."""
    world: tuple[float, float]
    """Mean score and success by the environment, of the scored episodes that it had scored."""
    scorer: tuple[float, float]
    """The same by the scorer."""
    agreement: Agreement
    warnings: tuple[str, ...]
    """Lines of the source that were left out."""


async def rescore(
    source: Path,
    scorer: Scorer,
    out: Path | None = None,
    *,
    concurrency: int = 8,
    progress: Progress | None = None,
) -> Rescored:
    """Score the episodes of a file; each is written as soon as its score is there.

    Args:
        source: A file of episodes; it stays as it is.
        scorer: The scorer.
        out: The new file; unset: beside the source. An existing one is continued.
        concurrency: Episodes that are scored at once.
        progress: Called after every episode.

    Raises:
        ConfigError: There is no episode, or the new file is the source or holds other scores.
        EngineError: A judge does not answer; the same call continues.
    """
    target = out or beside(source)
    if target.exists() and source.exists() and target.samefile(source):
        raise ConfigError(f"{target} is the source itself: choose another `--out`")
    left_out = LeftOut()
    episodes = list(valid_episodes(source, left_out))
    if not episodes:
        reason = left_out.lines[0] if left_out.lines else "it is empty"
        raise ConfigError(f"no episode can be read from {source}: {reason}")
    work = _Work(target, scorer, progress, _done(target, scorer), len(episodes))
    if not target.exists():
        append_line(target, dumps({"header": _header(source, scorer)}))
    queue = deque(enumerate(episodes))
    await gather(work.take(queue) for _ in range(min(concurrency, len(episodes))))
    if work.failure is not None:
        raise work.failure
    # The order of the source, whatever was scored first.
    whole = [work.found[place] for place in sorted(work.found)]
    header = dumps({"header": _header(source, scorer)})
    write_lines(target, [header, *(record.to_json() for record in whole)])
    return _summary(target, whole, work, left_out)


def beside(source: Path) -> Path:
    """The file of scores that names none."""
    name, _, ending = source.name.partition(".jsonl")
    return source.with_name(f"{name}.scored.jsonl{ending}")


@dataclass
class _Work:
    target: Path
    scorer: Scorer
    progress: Progress | None
    earlier: dict[str, list[EpisodeRecord]]
    """Episodes that an earlier call has scored, by what they are."""
    total: int

    def __post_init__(self) -> None:
        self.found: dict[int, EpisodeRecord] = {}
        self.unscored: dict[int, str] = {}
        self.failure: Exception | None = None

    async def take(self, queue: deque[tuple[int, EpisodeRecord]]) -> None:
        """Score episodes until there is none left, or one has failed.

        After a failure, scores that are under way are awaited and kept: a judge is paid for them.
        """
        while queue and self.failure is None:
            place, episode = queue.popleft()
            try:
                await self._score(place, episode)
            except Exception as problem:
                self.failure = self.failure or problem
                return
            if self.progress is not None:
                self.progress(self.total - len(queue), self.total)

    async def _score(self, place: int, episode: EpisodeRecord) -> None:
        known = self.earlier.get(_identity(episode))
        if known:
            self.found[place] = known.pop()
            return
        if episode.stop.scored:
            try:
                episode = rescored(episode, self.scorer.name, await self.scorer.score(episode))
            except Unscored as problem:
                self.unscored[place] = f"episode {episode.sample} of {episode.task}: {problem}"
                return
        self.found[place] = episode
        append(self.target, episode)


def rescored(episode: EpisodeRecord, scorer: str, score: Score) -> EpisodeRecord:
    """The episode with another score; that of the environment is kept."""
    before = episode.rescoring
    return replace(
        episode,
        score=score.value,
        won=score.success,
        rescoring=Rescoring(
            scorer=scorer,
            world_score=episode.score if before is None else before.world_score,
            world_won=episode.won if before is None else before.world_won,
            criteria=dict(score.criteria),
            reason=score.reason,
        ),
    )


def _done(target: Path, scorer: Scorer) -> dict[str, list[EpisodeRecord]]:
    if not target.exists():
        return {}
    header = next(read_objects(target), {}).get("header", {})
    held = (header.get("settings") or {}).get("scorer") if isinstance(header, Mapping) else None
    if held != scorer.name:
        raise ConfigError(
            f"{target} holds {f'scores of {held}' if held else 'no scores'}, not of "
            f"{scorer.name}: choose another `--out`"
        )
    found: dict[str, list[EpisodeRecord]] = {}
    for record in valid_episodes(target, LeftOut()):
        found.setdefault(_identity(record), []).append(record)
    return found


def _identity(episode: EpisodeRecord) -> str:
    """What an episode is, whatever scored it."""
    same = replace(episode, score=0.0, won=False, rescoring=None)
    return hashlib.blake2b(same.to_json().encode(), digest_size=16).hexdigest()


def _header(source: Path, scorer: Scorer) -> dict[str, Any]:
    """That of the source, an evaluation or not, with the scorer among its settings."""
    try:
        first = next(read_objects(source), {}).get("header")
    except ConfigError:  # The first line is damaged, and left out.
        first = None
    header = first if isinstance(first, dict) else {}
    settings = header.get("settings")
    held = settings if isinstance(settings, dict) else {}
    return {**header, "settings": {**held, "scorer": scorer.name}}


def _summary(
    target: Path, records: Sequence[EpisodeRecord], work: _Work, left_out: LeftOut
) -> Rescored:
    scored = [(each, each.rescoring) for each in records if each.rescoring is not None]
    known = [(each, reported) for each, reported in scored if not math.isnan(reported.world_score)]
    return Rescored(
        path=target,
        scored=len(scored),
        unscored=tuple(work.unscored[place] for place in sorted(work.unscored)),
        broken=sum(not each.stop.scored for each in records),
        world=_means([(reported.world_score, reported.world_won) for _, reported in known]),
        scorer=_means([(each.score, each.won) for each, _ in known]),
        agreement=agreement([each for each, _ in known]),
        warnings=left_out.summary(),
    )


def _means(pairs: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    count = max(1, len(pairs))
    return sum(score for score, _ in pairs) / count, sum(won for _, won in pairs) / count
