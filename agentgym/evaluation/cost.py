"""What episodes cost: tokens, turns, tool calls, time, and dollars where prices are known."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from agentgym.engines.stats import ChatUsage
from agentgym.evaluation.records import EpisodeRecord


class Prices(NamedTuple):
    """Dollars per million tokens; zeros where they are not known."""

    prompt: float = 0.0
    completion: float = 0.0


FREE = Prices()
"""Prices that are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Sums over episodes."""

    episodes: int = 0
    prompt_tokens: int = 0
    """Each token counted once, when it was first read: a conversation that grows is not counted
    again in every turn."""
    completion_tokens: int = 0
    turns: int = 0
    tool_calls: int = 0
    seconds: float = 0.0
    """Wall-clock time of the episodes, waiting included; many run at once."""
    charged: float = 0.0
    """Dollars that a chat endpoint reported."""

    @classmethod
    def of(cls, record: EpisodeRecord) -> Cost:
        """The cost of one episode."""
        return cls(
            episodes=1,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            turns=len(record.turns),
            tool_calls=sum(len(turn.calls) for turn in record.turns),
            seconds=record.seconds if record.seconds == record.seconds else 0.0,
        )

    def __add__(self, other: Cost) -> Cost:
        """The sum."""
        return Cost(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def counted_by(self, usage: ChatUsage) -> Cost:
        """The same with the tokens, and the dollars, that a chat endpoint counted."""
        return replace(
            self,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            charged=usage.dollars,
        )

    def dollars(self, prices: Prices) -> float:
        """What was charged; where nothing was reported, at prices per million tokens.

        Examples:
            >>> Cost(prompt_tokens=2_000_000, completion_tokens=1_000_000).dollars(Prices(1.0, 4.0))
            6.0
        """
        tokens = self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion
        return self.charged or tokens / 1e6

    def line(self, prices: Prices = FREE) -> str:
        """Such as ``12k tokens in, 3.4k out, $0.02``."""
        parts = [f"{short(self.prompt_tokens)} tokens in, {short(self.completion_tokens)} out"]
        if any(prices) or self.charged:
            parts.append(f"${self.dollars(prices):,.2f}")
        return ", ".join(parts)


def short(number: float) -> str:
    """A number in few characters.

    Examples:
        >>> short(12), short(3456), short(1_234_567)
        ('12', '3.5k', '1.2M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """Such as ``1:02:03``; ``0.4 s`` below ten seconds.

    Examples:
        >>> clock(3723), clock(0.42)
        ('1:02:03', '0.4 s')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
