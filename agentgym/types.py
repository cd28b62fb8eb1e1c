"""What flows through the system: task -> turns -> trajectory. Plain frozen values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Stop(StrEnum):
    """Why an episode ended."""

    TERMINATED = "terminated"
    """The world said so: won or lost."""
    MAX_TURNS = "max_turns"
    """The turn limit was reached."""
    MAX_TOKENS = "max_tokens"
    """The context budget was spent."""
    MAX_TIME = "max_time"
    """The time limit was reached."""
    ENV_ERROR = "world_error"
    """The world raised, or its process died while it was asked."""
    TOOL_TIMEOUT = "tool_timeout"
    """The world gave no answer in time."""
    ABORTED = "aborted"
    """It was given up from outside: its process died while the world was idle."""

    @property
    def scored(self) -> bool:
        """The ending says something about the agent; others enter no reward and no statistic."""
        return self not in (Stop.ENV_ERROR, Stop.TOOL_TIMEOUT, Stop.ABORTED)


class Ending(StrEnum):
    """How an episode ended: ``Stop``, with what the world said of it."""

    SUCCESS = "success"
    FAILURE = "failure"
    TRUNCATED = "truncated"
    """By a limit on turns, tokens or time."""
    ENV_ERROR = "world_error"
    TOOL_TIMEOUT = "tool_timeout"
    ABORTED = "aborted"

    @classmethod
    def of(cls, stop: Stop, won: bool) -> Ending:
        """The one that an episode has.

        Examples:
            >>> Ending.of(Stop.MAX_TURNS, False)
            <Ending.TRUNCATED: 'truncated'>
        """
        if stop is Stop.TERMINATED:
            return cls.SUCCESS if won else cls.FAILURE
        return cls.TRUNCATED if stop.scored else cls(stop.value)


@dataclass(frozen=True, slots=True)
class Task:
    """What to attempt: a world, one of its tasks, and the seed of everything random in it."""

    env: str
    """Registered environment id, such as ``agentgym/TextWorld-v0``."""
    id: str
    """The world's own name for the task, as listed by its panel."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws one completion. The seed fixes the draw, whatever else is in flight."""

    seed: int = 0
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps every token."""
    max_tokens: int = 64
    """Longest completion, in tokens."""
    stop: tuple[int, ...] = ()
    """Token ids that end a completion; the one drawn is part of it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled for one prompt; the columns have one entry per token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-probability under the distribution actually sampled from, in nats."""
    entropies: tuple[float, ...]
    """Entropy of that distribution, in nats."""
    version: int = 0
    """Policy version that sampled it; the oldest, where weights changed on the way."""
    finish: Literal["stop", "length"] = "stop"
    """Why it ended: with a stop token, or at its limit."""
    versions: tuple[int, ...] = ()
    """Policy version of each token where weights changed on the way; else empty."""

    @property
    def token_versions(self) -> tuple[int, ...]:
        """Policy version of each token."""
        return self.versions or (self.version,) * len(self.tokens)

    def __post_init__(self) -> None:
        """Refuse ragged columns."""
        columns = self.tokens, self.logprobs, self.entropies, self.token_versions
        if len(set(map(len, columns))) > 1:
            raise ValueError(
                f"completion columns must have one length, got tokens={len(self.tokens)}, "
                f"logprobs={len(self.logprobs)}, entropies={len(self.entropies)}, "
                f"versions={len(self.versions)}"
            )


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange: what the agent read, what it wrote, what it did, what came back."""

    prompt: tuple[int, ...]
    """Tokens read since the previous completion; the whole context when ``fresh``."""
    completion: Completion
    action: str
    """What reached the world; empty when the completion held no action."""
    observation: str
    """The answer: the world's, or the reason why the completion was no action."""
    reward: float
    fresh: bool = False
    """The context was rebuilt for this turn, so it starts a new training row."""
    parsed: bool = True
    """The completion held an action."""
    valid: bool = True
    """The world accepted the action."""
    learn: bool = True
    """The tokens of the completion are trained on; a demonstrator's slip is context only."""
    thought: int = 0
    """Leading tokens of the completion that are thought, before the action."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished episode."""

    task: Task
    sample: int
    """Which of the episodes of this task, from 0."""
    goal: str
    opening: str
    """First observation."""
    turns: tuple[Turn, ...]
    stop: Stop
    score: float = 0.0
    """The world's own score at the end, in [0, 1]."""
    won: bool = False
    task_type: str = ""
    """Family of the task, in the world's words."""
    error: str = ""
    """What broke, when ``stop`` is not scored."""
    spoilt: tuple[Stop, ...] = ()
    """Endings of earlier attempts at this episode, none of them scored."""
    shared: int = 0
    """Leading turns taken over from the episode that this one was forked from."""

    @property
    def ending(self) -> Ending:
        """How it ended."""
        return Ending.of(self.stop, self.won)

    @property
    def reward(self) -> float:
        """Undiscounted return."""
        return sum(turn.reward for turn in self.turns)

    def rows(self) -> Iterator[tuple[Turn, ...]]:
        """Split into maximal runs of turns whose context only grew: one training row each."""
        row: list[Turn] = []
        for turn in self.turns:
            if turn.fresh and row:
                yield tuple(row)
                row = []
            row.append(turn)
        if row:
            yield tuple(row)
