"""Episode records: one JSON line per finished episode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from agentgym.errors import ConfigError
from agentgym.types import Stop, Task, Trajectory, Turn
from agentgym.utils.jsonl import append_line, dumps, parse_object, read_objects

SCHEMA = 4
"""Version of an episode's line; raised when a field changes its meaning."""

LONGEST_PREFIXES = 512
"""Tokens of a completion up to which growing prefixes are decoded."""

Decode = Callable[[Sequence[int]], str]
"""Token ids to text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One exchange. The columns of the completion have one entry per sampled token."""

    action: str
    observation: str
    reward: float
    parsed: bool
    valid: bool
    prompt_tokens: int
    """Tokens read since the previous completion."""
    completion_tokens: int
    entropy: float
    """Mean over the completion's tokens, in nats; NaN when it has none."""
    text: str | None
    """The completion as text; None without a decoder."""
    tokens: tuple[int, ...]
    """Ids of the sampled tokens."""
    ends: tuple[int, ...]
    """Where each token ends in ``text``, in characters; empty where that is not known."""
    logprobs: tuple[float, ...]
    """Log-probabilities under the distribution that was sampled from, in nats, to 7 digits."""
    entropies: tuple[float, ...]
    """Entropies of that distribution, in nats, to 7 digits."""
    versions: tuple[int, ...]
    """Policy version of each token where weights changed during the completion; else empty."""
    version: int
    """Policy version that sampled it; the oldest, where weights changed."""
    thought_tokens: int
    """Leading tokens that are thought."""
    trained: bool
    """The tokens are trained on (loss mask)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """One finished episode, one JSON line."""

    env: str
    task: str
    seed: int
    sample: int
    """Which of the episodes of this task, from 0."""
    task_type: str
    goal: str
    opening: str
    turns: tuple[TurnRecord, ...]
    stop: Stop
    won: bool
    score: float
    """The environment's score, in [0, 1]."""
    reward: float
    """Undiscounted return."""
    prompt_tokens: int
    """Sum over turns."""
    completion_tokens: int
    """Sum over turns."""
    version: int
    """Oldest policy version that sampled a token of it; -1 when nothing was sampled."""
    shared_turns: int
    """Leading turns taken over from the episode that this one was forked from."""
    seconds: float
    """Wall-clock time from the first reset to the last answer, waiting included."""
    panel: str
    """Digest of the panel it was played for; empty outside evaluation."""
    error: str
    """The environment error, when ``stop`` is not scored."""
    failed_attempts: tuple[Stop, ...]
    """Endings of earlier, unscored attempts at this episode."""

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        *,
        seconds: float = math.nan,
        panel: str = "",
        decode: Decode | None = None,
    ) -> EpisodeRecord:
        """What is kept of an episode.

        Args:
            trajectory: The finished episode.
            seconds: How long it took.
            panel: Digest of the panel it was played for.
            decode: Completion tokens to text; without it no text is kept.
        """
        turns = tuple(_turn(turn, decode) for turn in trajectory.turns)
        versions = [turn.completion.version for turn in trajectory.turns]
        return cls(
            env=trajectory.task.env,
            task=trajectory.task.id,
            seed=trajectory.task.seed,
            sample=trajectory.sample,
            task_type=trajectory.task_type,
            goal=trajectory.goal,
            opening=trajectory.opening,
            turns=turns,
            stop=trajectory.stop,
            won=trajectory.won,
            score=trajectory.score,
            reward=float(trajectory.reward),
            prompt_tokens=sum(turn.prompt_tokens for turn in turns),
            completion_tokens=sum(turn.completion_tokens for turn in turns),
            version=min(versions, default=-1),
            shared_turns=trajectory.shared_turns,
            seconds=seconds,
            panel=panel,
            error=trajectory.error,
            failed_attempts=trajectory.failed_attempts,
        )

    @property
    def key(self) -> tuple[Task, int]:
        """Which episode this is: its task, and which sample of it."""
        return Task(self.env, self.task, self.seed), self.sample

    def to_json(self) -> str:
        """One line, without its newline."""
        return dumps({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, line: str) -> EpisodeRecord:
        """The reverse of ``to_json``.

        Raises:
            ConfigError: The line is not an episode record of this schema version.
        """
        return cls.from_object(parse_object(line))

    @classmethod
    def from_object(cls, found: Mapping[str, Any]) -> EpisodeRecord:
        """An episode from a JSON object; the edge where untyped data becomes typed."""
        if found.get("schema") != SCHEMA:
            raise ConfigError(f"an episode of schema {found.get('schema')!r}, expected {SCHEMA}")
        known = {field.name for field in fields(cls)} | {"schema"}
        if known != found.keys():
            raise ConfigError(f"an episode with wrong fields: {', '.join(known ^ found.keys())}")
        content = {name: value for name, value in found.items() if name != "schema"}
        turns = tuple(_turn_of_object(turn) for turn in content["turns"])
        content = _with_nan(content, ("score", "reward", "seconds"))
        failed_attempts = tuple(map(Stop, content["failed_attempts"]))
        return cls(
            **{
                **content,
                "turns": turns,
                "stop": Stop(content["stop"]),
                "failed_attempts": failed_attempts,
            }
        )


def append(path: Path, record: EpisodeRecord) -> None:
    """Add one episode to a file, whole or not at all."""
    append_line(path, record.to_json())


def read_episodes(path: Path) -> tuple[EpisodeRecord, ...]:
    """Every complete episode of a file, in file order; header lines are skipped.

    Raises:
        ConfigError: A line other than the last one is damaged.
    """
    return tuple(iterate_episodes(path))


def iterate_episodes(path: Path) -> Iterator[EpisodeRecord]:
    """The same one by one, so that the episodes before a damaged line can be used.

    Raises:
        ConfigError: At the first damaged line other than the last one.
    """
    for found in read_objects(path):
        if "header" not in found:
            yield EpisodeRecord.from_object(found)


def _with_nan(found: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**found, **{name: math.nan for name in names if found[name] is None}}


_COLUMNS = ("tokens", "ends", "logprobs", "entropies", "versions")


def _turn_of_object(found: Mapping[str, Any]) -> TurnRecord:
    columns = {name: tuple(found[name]) for name in _COLUMNS}
    return TurnRecord(**{**_with_nan(found, ("reward", "entropy")), **columns})


def _turn(turn: Turn, decode: Decode | None) -> TurnRecord:
    drawn = turn.completion
    tokens = drawn.tokens
    text = None if decode is None else decode(tokens)
    return TurnRecord(
        action=turn.action,
        observation=turn.observation,
        reward=float(turn.reward),
        parsed=turn.parsed,
        valid=turn.valid,
        prompt_tokens=len(turn.prompt),
        completion_tokens=len(tokens),
        entropy=sum(drawn.entropies) / len(tokens) if tokens else math.nan,
        text=text,
        tokens=tokens,
        ends=() if text is None or decode is None else token_ends(tokens, text, decode),
        logprobs=tuple(map(_short, drawn.logprobs)),
        entropies=tuple(map(_short, drawn.entropies)),
        versions=drawn.versions,
        version=drawn.version,
        thought_tokens=turn.thought_tokens,
        trained=turn.learn,
    )


def _short(value: float) -> float:
    """To 7 significant digits: what float32 holds, in fewer characters."""
    return float(f"{value:.7g}")


def token_ends(tokens: Sequence[int], text: str, decode: Decode) -> tuple[int, ...]:
    """Where each token ends in the decoded text, in characters.

    Most tokenizers decode token by token to the same text. Where bytes of one character are spread
    over tokens, growing prefixes are decoded instead, which costs the square of the length.

    Examples:
        >>> token_ends([104, 105], "hi", lambda ids: "".join(map(chr, ids)))
        (1, 2)
    """
    pieces = [decode([token]) for token in tokens]
    if "".join(pieces) == text:
        return tuple(accumulate(map(len, pieces)))
    if len(tokens) > LONGEST_PREFIXES:
        return ()
    lengths = (len(decode(tokens[: n + 1])) for n in range(len(tokens)))
    return tuple(min(length, len(text)) for length in lengths)
