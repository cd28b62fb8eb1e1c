"""What episodes are like: how long they are, and what they wait for."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import ClassVar

from agentgym.utils.bounds import at_least, within

TURN_SPREAD = 0.5
"""Standard deviation of the logarithm of an episode's turns."""
TOKEN_SPREAD = 0.8
"""The same of a completion's tokens."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What episodes are like, on average."""

    section: ClassVar[str] = ""

    turns: int = 30
    """Turns of an episode."""
    max_turns: int = 50
    """Turns after which it is cut."""
    opening_tokens: int = 500
    """Tokens of its first prompt."""
    read_tokens: int = 80
    """Tokens that the environment adds in a turn."""
    written_tokens: int = 100
    """Tokens of a completion."""
    env_seconds: float = 0.02
    """Seconds of an answer of the environment."""
    slow_share: float = 0.02
    """Share of the answers that take long."""
    slow_seconds: float = 2.0
    """Seconds of such an answer."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        at_least(1, self, "turns", "max_turns", "read_tokens", "written_tokens")
        at_least(0, self, "opening_tokens", "env_seconds", "slow_seconds")
        within(0, 1, self, "slow_share")

    @property
    def tokens(self) -> float:
        """Of an episode at its end."""
        return self.opening_tokens + self.turns * (self.read_tokens + self.written_tokens)

    @property
    def half_played(self) -> float:
        """Tokens of an episode in the middle, which is the mean over those in flight."""
        return (self.opening_tokens + self.tokens) / 2

    def draw_answer_seconds(self, rng: random.Random) -> float:
        """Of one answer of the environment."""
        return self.slow_seconds if rng.random() < self.slow_share else self.env_seconds

    def draw_turns(self, rng: random.Random) -> int:
        """Turns of one episode."""
        return max(1, min(self.max_turns, round(_around(rng, self.turns, TURN_SPREAD))))

    def draw_tokens(self, rng: random.Random) -> float:
        """Tokens of one completion."""
        return max(1.0, _around(rng, self.written_tokens, TOKEN_SPREAD))


def _around(rng: random.Random, mean: float, spread: float) -> float:
    """A log-normal number with this mean."""
    return rng.lognormvariate(math.log(mean) - spread**2 / 2, spread)
