"""The values that all parts exchange: task, completion, turn, trajectory. Frozen dataclasses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple


class Stop(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"
    """The environment ended it: success or failure."""
    MAX_TURNS = "max_turns"
    """The turn limit was reached."""
    MAX_TOKENS = "max_tokens"
    """The context limit was reached."""
    MAX_TIME = "max_time"
    """The time limit was reached."""
    ENV_ERROR = "world_error"
    """The environment raised, or its process died during a call."""
    TOOL_TIMEOUT = "tool_timeout"
    """The environment did not answer in time."""
    ABORTED = "aborted"
    """It was given up from outside: its process died between calls."""

    @property
    def scored(self) -> bool:
        """Whether the ending measures the agent; others enter neither rewards nor statistics."""
        return self not in (Stop.ENV_ERROR, Stop.TOOL_TIMEOUT, Stop.ABORTED)


class Ending(StrEnum):
    """How an episode ended: ``Stop``, split into success and failure."""

    SUCCESS = "success"
    FAILURE = "failure"
    TRUNCATED = "truncated"
    """By a limit on turns, tokens or time."""
    ENV_ERROR = "world_error"
    TOOL_TIMEOUT = "tool_timeout"
    ABORTED = "aborted"

    @classmethod
    def of(cls, stop: Stop, won: bool) -> Ending:
        """The ending of an episode.

        Examples:
            >>> Ending.of(Stop.MAX_TURNS, False)
            <Ending.TRUNCATED: 'truncated'>
        """
        if stop is Stop.TERMINATED:
            return cls.SUCCESS if won else cls.FAILURE
        return cls.TRUNCATED if stop.scored else cls(stop.value)


@dataclass(frozen=True, slots=True)
class Task:
    """An environment, one of its tasks, and the seed of all randomness in it."""

    env: str
    """Registered environment id, such as ``agentgym/TextWorld-v0``."""
    id: str
    """Id of the task within the environment, as listed by its panel."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine samples one completion; a function of the seed, not of concurrent requests."""

    seed: int = 0
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    max_tokens: int = 64
    """Longest completion, in tokens."""
    stop: tuple[int, ...] = ()
    """Token ids that end a completion; the one sampled is part of it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled for one prompt; each column has one entry per token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability under the distribution actually sampled from, in nats."""
    entropies: tuple[float, ...]
    """Entropy of that distribution, in nats."""
    version: int = 0
    """Policy version that sampled it; the oldest, if weights changed meanwhile."""
    finish: Literal["stop", "length"] = "stop"
    """Why it ended: at a stop token, or at ``max_tokens``."""
    versions: tuple[int, ...] = ()
    """Policy version of each token if weights changed meanwhile; else empty."""

    @property
    def token_versions(self) -> tuple[int, ...]:
        """Policy version of each token."""
        return self.versions or (self.version,) * len(self.tokens)

    def __post_init__(self) -> None:
        """Check that all columns have one length."""
        columns = self.tokens, self.logprobs, self.entropies, self.token_versions
        if len(set(map(len, columns))) > 1:
            raise ValueError(
                f"completion columns must have one length, got tokens={len(self.tokens)}, "
                f"logprobs={len(self.logprobs)}, entropies={len(self.entropies)}, "
                f"versions={len(self.versions)}"
            )


class ToolCall(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: prompt, completion, action, observation, reward."""

    prompt: tuple[int, ...]
    """Prompt tokens since the previous completion; the whole context if ``fresh``."""
    completion: Completion
    action: str
    """What the environment received; empty if the completion was malformed."""
    observation: str
    """Answer of the environment, or the reason why the completion was malformed."""
    reward: float
    fresh: bool = False
    """The context was rendered again for this turn, so a new training row starts here."""
    parsed: bool = True
    """The completion contained an action."""
    valid: bool = True
    """The environment accepted the action."""
    learn: bool = True
    """The completion is trained on; random actions of a demonstrator are context only."""
    thought_tokens: int = 0
    """Leading tokens of the completion that are thought, before the action."""
    forced: tuple[int, int] = (0, 0)
    """Start and stop of the tokens of the completion that were inserted to end a thought; they are
    not sampled and not trained on."""
    calls: tuple[ToolCall, ...] = field(default=(), hash=False)
    """Calls of tools in the action, in order; none where the environment takes plain text."""
    sampling_seconds: float = field(default=math.nan, compare=False, repr=False)
    """Wall-clock time until the completion was there, waiting for other requests included."""
    env_seconds: float = field(default=math.nan, compare=False, repr=False)
    """Wall-clock time that the environment took to answer; NaN if it was not asked."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished episode."""

    task: Task
    sample: int
    """Number of the episode among those of its task, from 0."""
    goal: str
    opening: str
    """First observation."""
    turns: tuple[Turn, ...]
    stop: Stop
    score: float = 0.0
    """Score that the environment gave at the end, in [0, 1]."""
    won: bool = False
    task_type: str = ""
    """Type of the task, as the environment names it."""
    error: str = ""
    """What failed, if ``stop`` is not scored."""
    failed_attempts: tuple[Stop, ...] = ()
    """Endings of earlier attempts at this episode; none of them is scored."""
    shared_turns: int = 0
    """Leading turns taken over from the episode that this one was forked from."""
    parent: int | None = None
    """Sample of the episode of the same task that this one was forked from; None for a root."""
    manual: str = ""
    """How to act in this environment."""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """Schemas of the tools of the environment, in OpenAI's form."""

    @property
    def ending(self) -> Ending:
        """How the episode ended."""
        return Ending.of(self.stop, self.won)

    @property
    def reward(self) -> float:
        """Undiscounted return."""
        return sum(turn.reward for turn in self.turns)

    def rows(self) -> Iterator[tuple[Turn, ...]]:
        """Split into maximal runs of turns with a growing context: one training row each."""
        row: list[Turn] = []
        for turn in self.turns:
            if turn.fresh and row:
                yield tuple(row)
                row = []
            row.append(turn)
        if row:
            yield tuple(row)
