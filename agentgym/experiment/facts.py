"""What the terminal shows while a run trains or plays a panel."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from agentgym.evaluation.evaluate import PlayEpisode
from agentgym.types import Task, Trajectory
from agentgym.utils.progress import Fact

REMEMBERED = 60
"""Steps of a trend."""
STAGES = {"time/engine": "engine", "time/env": "environment", "time/update": "update"}
STAGES |= {"time/sync": "sync"}


class TrainFacts:
    """Success, reward, speed and the slowest stage of the latest training step."""

    def __init__(self) -> None:
        self._trends: dict[str, deque[float]] = {}

    def of(self, metrics: Mapping[str, float]) -> tuple[Fact, ...]:
        """The facts after a step with these metrics."""
        shown = {
            "success": "episode/success",
            "reward": "episode/reward",
            "turns": "episode/turns",
            "entropy": "policy/entropy",
            "kl": "update/kl",
        }
        known = {name: metrics[key] for name, key in shown.items() if key in metrics}
        facts = [self._fact(name, value) for name, value in known.items()]
        speed = metrics.get("tokens_per_second", 0.0)
        return *facts, Fact("tok/s", f"{speed:,.0f}"), Fact("slowest", slowest(metrics))

    def _fact(self, name: str, value: float) -> Fact:
        trend = self._trends.setdefault(name, deque(maxlen=REMEMBERED))
        if math.isfinite(value):
            trend.append(value)
        return Fact(name, f"{value:.3g}", tuple(trend))


def slowest(metrics: Mapping[str, float]) -> str:
    """The stage of a step that took longest, with its share of the step's time.

    Examples:
        >>> slowest({"time/engine": 6.0, "time/update": 2.0})
        'engine 75 %'
    """
    found = {name: metrics.get(key, 0.0) for key, name in STAGES.items()}
    name = max(found, key=lambda each: found[each])
    total = sum(found.values())
    return f"{name} {100 * found[name] / total:.0f} %" if total else "?"


class _Seen(NamedTuple):
    won: bool
    turns: int
    tokens: int


class EvalFacts:
    """Success so far, and the speed, of the episodes that this call plays."""

    def __init__(self, play: PlayEpisode) -> None:
        self._play = play
        self._seen: list[_Seen] = []
        self._trend: list[float] = []
        self._start = time.monotonic()

    async def __call__(self, task: Task, sample: int) -> Trajectory:
        """Play an episode and remember how it went."""
        played = await self._play(task, sample)
        if played.stop.scored:
            tokens = sum(len(turn.completion.tokens) for turn in played.turns)
            self._seen.append(_Seen(played.won, len(played.turns), tokens))
            self._trend.append(self._success())
        return played

    def facts(self) -> tuple[Fact, ...]:
        """The facts now; none before the first scored episode."""
        if not self._seen:
            return ()
        seconds = max(1e-9, time.monotonic() - self._start)
        turns = sum(each.turns for each in self._seen)
        every = max(1, len(self._trend) // REMEMBERED)
        return (
            Fact("success so far", f"{self._success():.3f}", self._trend[::every]),
            Fact("turns", f"{turns / len(self._seen):.1f}"),
            Fact("episodes/s", f"{len(self._seen) / seconds:.2f}"),
            Fact("tok/s", f"{sum(each.tokens for each in self._seen) / seconds:,.0f}"),
        )

    def _success(self) -> float:
        return sum(each.won for each in self._seen) / len(self._seen)
