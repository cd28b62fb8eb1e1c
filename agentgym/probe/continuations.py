"""Playing on from the states of recorded episodes, until the value of each state is known."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentgym.errors import ConfigError
from agentgym.evaluation.records import EpisodeRecord
from agentgym.probe.files import ValuedEpisode
from agentgym.probe.strata import Continuation, Share, Tokens, share_of
from agentgym.probe.tree import Branch, State, grow, outcome_of
from agentgym.probe.values import Estimate, Known, Value, missing
from agentgym.rollout.player import Player
from agentgym.types import Trajectory
from agentgym.utils.concurrency import gather

_STATES = 8
"""States that are explored side by side: enough for a full batch, few enough that an engine keeps
the prefixes from which it copies their continuations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long continuations are played."""

    half_width: float = 0.05
    """Half width of the 95 % intervals to reach."""
    least: int = 8
    """Continuations from every state, before its spread is trusted."""
    most: int = 500
    """Continuations from a state, after which its interval stays as it is."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0 < self.half_width < 0.5 or not 1 <= self.least <= self.most:
            raise ConfigError(
                f"got half_width={self.half_width}, least={self.least}, most={self.most}: expected "
                f"a half width inside (0, 0.5) and 1 <= least <= most"
            )

    def next_round(self, wanted: int, rest: float, drawn: int) -> int:
        """Continuations of the next round from a state.

        At most as many as before: the first ones show whether outcomes differ at all.

        Args:
            wanted: Continuations that are missing.
            rest: Share of the continuations that do not repeat a recorded turn.
            drawn: Continuations so far.
        """
        draws = max(math.ceil(wanted / max(0.05, rest)), self.least - drawn)
        return min(draws, max(self.least, drawn), self.most - drawn)


class Valued(NamedTuple):
    """The values of the episodes of one task."""

    episodes: list[ValuedEpisode]
    """In the order of the records."""
    states: int
    """Different states."""
    continuations: int
    """Episodes that were played to their end."""


async def turn_values(
    player: Player, records: Sequence[EpisodeRecord], effort: Effort, *, own: bool
) -> Valued:
    """The value of every state of episodes of one task under the player's policy.

    Args:
        player: The policy, and the environments.
        records: The episodes. States that they share are valued once.
        effort: How certain the values must be.
        own: The player's policy sampled the episodes, so that the recorded log-probabilities are
            those of its turns; see ``agentgym.probe.values``.

    Raises:
        NotReplayable: The environment answers differently than in a record.
    """
    tree = await grow(player, records, own=own)
    try:
        explorations = {state: _Exploration(player, state, effort) for state in tree.states}
        gate = asyncio.Semaphore(_STATES)
        await gather(each.begin(gate) for each in explorations.values())
        await _value(tree.root, explorations)
    finally:
        await tree.discard()
    episodes = [_valued(record, path) for record, path in zip(records, tree.paths, strict=True)]
    played = sum(state.continuations for state in tree.states)
    return Valued(episodes, len(tree.states), played)


def _valued(record: EpisodeRecord, path: Sequence[State]) -> ValuedEpisode:
    estimates = [state.estimate for state in path] + [outcome_of(record)]
    return ValuedEpisode(
        task=record.key[0],
        sample=record.sample,
        version=record.version,
        won=record.won,
        actions=tuple(turn.action for turn in record.turns),
        values=tuple(each.interval() for each in estimates if each is not None),
        continuations=tuple(state.continuations for state in path),
    )


async def _value(state: State, explorations: Mapping[State, _Exploration]) -> Estimate:
    """Estimate the value of a state after those of all that follow it."""

    async def after(branch: Branch) -> tuple[float, Estimate]:
        end = branch.after
        found = end if isinstance(end, Estimate) else await _value(end, explorations)
        return branch.probability, found

    known = Known.of(await gather(after(branch) for branch in state.branches.values()))
    others = await explorations[state].finish(known)
    state.estimate, state.continuations = known.with_others(others), others.continuations
    return state.estimate


@dataclass
class _Exploration:
    """The continuations from one state."""

    player: Player
    state: State
    effort: Effort
    drawn: int = 0
    found: list[Continuation] = field(default_factory=list)

    async def begin(self, gate: asyncio.Semaphore) -> None:
        """Play what is needed even where the values of all states that follow are certain."""
        taken = Known(probability=sum(each.probability for each in self.state.branches.values()))
        async with gate:
            # Where even the worst outcomes would change nothing, none is played.
            if taken.rest > self.effort.half_width / 4:
                await self._draw(self.effort.least)
            await self.finish(taken)

    async def finish(self, known: Known) -> Share:
        """Play until the interval is narrow enough, or the limit is reached."""
        effort = self.effort
        share = share_of(self.found, known.rest)
        while self.drawn < effort.most:
            wanted = missing(known, share, effort.half_width)
            if not wanted:
                break
            await self._draw(effort.next_round(wanted, known.rest, self.drawn))
            share = share_of(self.found, known.rest)
        return share

    async def _draw(self, draws: int) -> None:
        first = self.state.seed + self.drawn
        played = await gather(self._continue(first + k) for k in range(draws))
        self.drawn += draws
        scored = (each for each in played if each is not None and each.stop.scored)
        depth = len(self.state.path)
        self.found += [Continuation.of(each, depth) for each in scored]

    async def _continue(self, sample: int) -> Trajectory | None:
        """A continuation to its end; None where it takes a recorded turn."""
        async with self.player.slot():
            twin = await self.state.mark.fork(sample)
            try:
                first = await twin.generate()
                if first is not None and _leads_on(self.state.branches, first.tokens):
                    return None
                await twin.step()
                while not twin.done:
                    await twin.generate()
                    await twin.step()
            finally:
                await twin.release()
            return twin.trajectory()


def _leads_on(branches: Mapping[Tokens, Branch], tokens: Tokens) -> bool:
    """Whether a completion is a recorded turn whose probability is known."""
    return tokens in branches and branches[tokens].probability > 0


def widest(values: Sequence[Value]) -> float:
    """The largest half width of intervals."""
    return max((value.half for value in values), default=0.0)
