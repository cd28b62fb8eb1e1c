"""Playing on from the states of recorded episodes, until the value of each state is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.probe.files import ValuedEpisode
from agentgym.probe.replay import bookmarks, completion_of
from agentgym.probe.values import Estimate, Outcomes, Value, missing
from agentgym.rollout.player import Episode, Player
from agentgym.types import Completion, Trajectory
from agentgym.utils.concurrency import gather

FIRST_SAMPLE = 1_000_000
"""Number of the first continuation, far from those of recorded episodes, whose seeds it must not
share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long continuations are played."""

    half_width: float = 0.05
    """Half width of the 95 % intervals to reach."""
    least: int = 8
    """Continuations from every state, before its spread is trusted."""
    most: int = 400
    """Continuations from a state, after which its interval stays as it is."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0 < self.half_width < 0.5 or not 1 <= self.least <= self.most:
            raise ConfigError(
                f"got half_width={self.half_width}, least={self.least}, most={self.most}: expected "
                f"a half width inside (0, 0.5) and 1 <= least <= most"
            )


async def turn_values(
    player: Player,
    record: EpisodeRecord,
    effort: Effort,
    *,
    own: bool,
    outcome: Callable[[Trajectory], float] = lambda played: float(played.won),
) -> ValuedEpisode:
    """The value of every state of an episode under the player's policy.

    Args:
        player: The policy, and the environments.
        record: The episode.
        effort: How certain the values must be.
        own: The player's policy sampled the episode, so that the recorded log-probabilities are
            those of its turns; see ``agentgym.probe.values``.
        outcome: What a continuation is worth, in [0, 1].

    Raises:
        NotReplayable: The environment answers differently than in the record.
    """
    marks = await bookmarks(player, record)
    try:
        end = Estimate(outcome_of(record), 0.0)
        estimates, counts = [end], []
        for turn in reversed(range(len(marks))):
            recorded = completion_of(player, record.turns[turn])
            repeat = math.exp(sum(recorded.logprobs)) if own else 0.0
            state = _State(player, marks[turn], recorded if own else None, min(1.0, repeat))
            found = await state.explore(estimates[-1], effort, outcome)
            estimates.append(estimates[-1].before(state.repeat, found))
            counts.append(found.count)
    finally:
        for mark in marks:
            await mark.discard()
    values = [estimate.interval() for estimate in reversed(estimates)]
    return ValuedEpisode(
        task=record.key[0],
        sample=record.sample,
        version=record.version,
        won=record.won,
        actions=tuple(turn.action for turn in record.turns),
        values=tuple(values),
        continuations=tuple(reversed(counts)),
    )


def outcome_of(record: EpisodeRecord) -> float:
    """What an episode that has ended is worth."""
    return float(record.won)


@dataclass
class _State:
    """One state of an episode, from which continuations are played."""

    player: Player
    mark: Episode
    recorded: Completion | None
    """The turn that leads to the next state; None where the next state is unknown."""
    repeat: float
    """Its probability."""
    drawn: int = 0

    async def explore(
        self, later: Estimate, effort: Effort, outcome: Callable[[Trajectory], float]
    ) -> Outcomes:
        """Play until the interval is narrow enough, or the limit is reached."""
        found = Outcomes()
        while self.drawn < effort.most:
            wanted = missing(later, self.repeat, found, effort.half_width)
            if not wanted and (self.drawn >= effort.least or self.certain(effort)):
                break
            # Some of the draws repeat the recorded turn.
            draws = math.ceil(wanted / max(0.05, 1 - self.repeat))
            draws = min(max(effort.least, draws // 2), effort.most - self.drawn)
            played = await gather(
                self._continue(FIRST_SAMPLE + self.drawn + k) for k in range(draws)
            )
            self.drawn += draws
            found = found.plus([outcome(t) for t in played if t is not None and t.stop.scored])
        return found

    def certain(self, effort: Effort) -> bool:
        """Whether even the worst outcomes of other turns would change nothing."""
        return 1 - self.repeat <= effort.half_width / 4

    async def _continue(self, sample: int) -> Trajectory | None:
        """A continuation to its end; None where it takes the recorded turn."""
        async with self.player.slot():
            twin = await self.mark.fork(sample)
            try:
                first = await twin.generate()
                if first is not None and self._repeats(first):
                    return None
                await twin.step()
                while not twin.done:
                    await twin.generate()
                    await twin.step()
            finally:
                await twin.release()
            return twin.trajectory()

    def _repeats(self, first: Completion) -> bool:
        return self.recorded is not None and first.tokens == self.recorded.tokens


def widest(values: Sequence[Value]) -> float:
    """The largest half width of intervals."""
    return max((value.half for value in values), default=0.0)
