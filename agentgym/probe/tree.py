"""The states that recorded episodes of one task passed through, as a tree.

Episodes that begin alike share states, whose values are estimated once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentgym.evaluation.records import EpisodeRecord
from agentgym.probe.replay import bookmarks, completion_of
from agentgym.probe.strata import Tokens, probability
from agentgym.probe.values import Estimate
from agentgym.rollout.episode import Episode
from agentgym.rollout.player import Player
from agentgym.utils.seeds import derive


@dataclass(eq=False)
class State:
    """A state of the environment, and what the agent has read and written until then."""

    path: tuple[Tokens, ...]
    """The completions that lead here."""
    mark: Episode
    """A running episode in this state."""
    branches: dict[Tokens, Branch] = field(default_factory=dict)
    """The turns that recorded episodes took from here, by their tokens."""
    estimate: Estimate | None = None
    """Its value, once it is known."""
    continuations: int = 0
    """Episodes that were played from here to their end."""

    @property
    def seed(self) -> int:
        """Number of the first continuation: the same wherever the state is met."""
        return derive("probe", len(self.path), *(token for turn in self.path for token in turn))


@dataclass(eq=False)
class Branch:
    """A recorded turn."""

    probability: float
    """Of this completion, under the policy that continues; 0 where that is unknown."""
    after: State | Estimate
    """The next state, or the outcome where an episode ends."""


@dataclass
class Tree:
    """All states of the episodes of one task."""

    states: list[State] = field(default_factory=list)
    """Every state is listed before those that follow it."""
    paths: list[list[State]] = field(default_factory=list)
    """The states of each episode, before each of its turns."""

    @property
    def root(self) -> State:
        """The state before the first turn."""
        return self.states[0]

    async def discard(self) -> None:
        """Close the environments."""
        for state in self.states:
            await state.mark.discard()


async def grow(player: Player, records: Sequence[EpisodeRecord], *, own: bool) -> Tree:
    """The states of episodes of one task; the caller discards the tree.

    Args:
        player: The policy that continues, and the environments.
        records: The episodes, each with at least one turn.
        own: The policy sampled the episodes, so that their log-probabilities are its own.

    Raises:
        NotReplayable: The environment answers differently than in a record.
    """
    tree, known = Tree(), dict[tuple[Tokens, ...], State]()
    try:
        for record in records:
            await _add(player, tree, known, record, own=own)
    except BaseException:
        await tree.discard()
        raise
    return tree


async def _add(
    player: Player,
    tree: Tree,
    known: dict[tuple[Tokens, ...], State],
    record: EpisodeRecord,
    *,
    own: bool,
) -> None:
    path: tuple[Tokens, ...] = ()
    states: list[State] = []
    completions = [completion_of(player, turn) for turn in record.turns]
    for mark, taken in zip(await bookmarks(player, record), completions, strict=True):
        if path in known:
            await mark.discard()
        else:
            tree.states.append(known.setdefault(path, State(path, mark)))
        states.append(known[path])
        path = (*path, taken.tokens)
    tree.paths.append(states)
    ends: list[State | Estimate] = [*states[1:], outcome_of(record)]
    for state, taken, after in zip(states, completions, ends, strict=True):
        chance = probability(taken) if own else 0.0
        state.branches.setdefault(taken.tokens, Branch(chance, after))


def outcome_of(record: EpisodeRecord) -> Estimate:
    """What an episode that has ended is worth."""
    return Estimate(float(record.won), 0.0)
