"""Episode records: one JSON line per finished episode.

``docs/reference/records.md`` lists every field; a test holds it to these classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from agentgym.errors import ConfigError
from agentgym.types import Stop, Task, ToolCall, Trajectory, Turn
from agentgym.utils.json_objects import from_object, to_object
from agentgym.utils.jsonl import dumps, parse_object

SCHEMA = 5
"""Version of an episode's line; raised when a field is added or changes its meaning."""

READABLE = (4, SCHEMA)
"""Versions that are read; the fields that an older one lacks have their defaults."""

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
    prompt: tuple[int, ...] = ()
    """Ids of the tokens read since the previous completion; the whole context if ``fresh``."""
    fresh: bool = False
    """The context was rendered again for this turn, so a new training row starts here."""
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
    """The tokens are trained on (loss mask), except ``forced`` ones."""
    forced: tuple[int, int] = (0, 0)
    """Start and stop of the tokens that were inserted to end a thought, not sampled."""
    advantage: float = math.nan
    """Mean over the tokens that are trained on; NaN outside training."""
    advantages: tuple[float, ...] = ()
    """Advantage of each token, 0 where it is not trained on; empty where ``advantage`` is that of
    every token that is."""
    calls: tuple[ToolCall, ...] = ()
    """Calls of tools in the action, in order."""
    sampling_seconds: float = math.nan
    """Wall-clock time until the completion was there, waiting for other requests included."""
    env_seconds: float = math.nan
    """Wall-clock time that the environment took to answer; NaN if it was not asked."""

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        """Which of the tokens are trained on."""
        start, stop = self.forced
        return tuple(
            self.trained and not start <= place < stop for place in range(len(self.tokens))
        )

    @property
    def token_advantages(self) -> tuple[float, ...]:
        """Advantage of each token; empty outside training."""
        if self.advantages or math.isnan(self.advantage):
            return self.advantages
        return tuple(self.advantage if kept else 0.0 for kept in self.loss_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescoring:
    """Another scorer's score of an episode, which replaced that of the environment."""

    scorer: str
    """Its name."""
    world_score: float
    """The environment's score."""
    world_won: bool
    """The environment called the task solved."""
    criteria: dict[str, float]
    """Score of each criterion, in [0, 1]; empty where the scorer has none."""
    reason: str
    """Why, in the scorer's words; may be empty."""


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
    """Leading turns taken over from the episode that this one was forked from: the turn of the
    fork."""
    parent: int | None = None
    """Sample of the episode of the same task that this one was forked from; null for a root."""
    seconds: float
    """Wall-clock time from the first reset to the last answer, waiting included."""
    panel: str
    """Digest of the panel it was played for; empty outside evaluation."""
    error: str
    """The environment error, when ``stop`` is not scored."""
    failed_attempts: tuple[Stop, ...]
    """Endings of earlier, unscored attempts at this episode."""
    manual: str = ""
    """How to act in this environment."""
    tools: tuple[dict[str, Any], ...] = ()
    """Schemas of the tools of the environment, in OpenAI's form."""
    rescoring: Rescoring | None = None
    """Set where ``score`` and ``won`` are those of another scorer; see ``agentgym score``."""

    @classmethod
    def of(
        cls,
        trajectory: Trajectory,
        *,
        seconds: float = math.nan,
        panel: str = "",
        decode: Decode | None = None,
        advantages: Sequence[Sequence[float]] = (),
    ) -> EpisodeRecord:
        """What is kept of an episode.

        Args:
            trajectory: The finished episode.
            seconds: How long it took.
            panel: Digest of the panel it was played for.
            decode: Completion tokens to text; without it no text is kept.
            advantages: Per turn, one number per sampled token; empty outside training.
        """
        credited = advantages or [()] * len(trajectory.turns)
        turns = tuple(
            _turn(turn, decode, given)
            for turn, given in zip(trajectory.turns, credited, strict=True)
        )
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
            parent=trajectory.parent,
            seconds=seconds,
            panel=panel,
            error=trajectory.error,
            failed_attempts=trajectory.failed_attempts,
            manual=trajectory.manual,
            tools=tuple(dict(schema) for schema in trajectory.tools),
        )

    @property
    def key(self) -> tuple[Task, int]:
        """Which episode this is: its task, and which sample of it."""
        return Task(self.env, self.task, self.seed), self.sample

    def to_json(self) -> str:
        """One line, without its newline."""
        return dumps({"schema": SCHEMA, **to_object(self)})

    @classmethod
    def from_json(cls, line: str) -> EpisodeRecord:
        """The reverse of ``to_json``.

        Raises:
            ConfigError: The line is not an episode record of this schema version.
        """
        return cls.from_object(parse_object(line))

    @classmethod
    def from_object(cls, found: Mapping[str, Any]) -> EpisodeRecord:
        """An episode from a JSON object; the edge where untyped data becomes typed.

        Raises:
            ConfigError: It is of another schema version, or a field is missing, unknown, of another
                type or out of range.
        """
        if found.get("schema") not in READABLE:
            raise ConfigError(
                f"an episode of schema {found.get('schema')!r}, expected "
                f"{' or '.join(map(str, READABLE))}"
            )
        content = {name: value for name, value in found.items() if name != "schema"}
        record = from_object(cls, content, "an episode")
        if record.score < 0 or record.score > 1:  # NaN: it has none.
            raise ConfigError(f"score of an episode is {record.score:g}, expected 0 to 1")
        return record


def _turn(turn: Turn, decode: Decode | None, advantages: Sequence[float]) -> TurnRecord:
    drawn = turn.completion
    tokens = drawn.tokens
    text = None if decode is None else decode(tokens)
    start, stop = turn.forced
    kept = [turn.learn and not start <= place < stop for place in range(len(tokens))]
    trained = [value for value, counts in zip(advantages, kept, strict=False) if counts]
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
        prompt=turn.prompt,
        fresh=turn.fresh,
        tokens=tokens,
        ends=() if text is None or decode is None else token_ends(tokens, text, decode),
        logprobs=tuple(map(_short, drawn.logprobs)),
        entropies=tuple(map(_short, drawn.entropies)),
        versions=drawn.versions,
        version=drawn.version,
        thought_tokens=turn.thought_tokens,
        trained=turn.learn,
        forced=turn.forced,
        advantage=_short(sum(trained) / len(trained)) if trained else math.nan,
        advantages=tuple(map(_short, advantages)) if len(set(trained)) > 1 else (),
        calls=turn.calls,
        sampling_seconds=_short(turn.sampling_seconds),
        env_seconds=_short(turn.env_seconds),
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
