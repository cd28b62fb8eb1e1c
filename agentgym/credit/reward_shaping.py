"""Rewards that training adds to the environment's own; the records keep the environment's."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.turns import Turns, turns_of
from agentgym.credit.transforms import Transform, stateless


def add_turn_reward(batch: Batch, turns: Turns, bonus: Float[Tensor, " K"]) -> Batch:
    """Add a reward to each turn, and their sum to each episode's return."""
    return batch.with_(
        turn_reward=batch.turn_reward + turns.spread(bonus, batch),
        reward=batch.reward + turns.per_episode(bonus, batch),
    )


def add_episode_reward(batch: Batch, bonus: Float[Tensor, " E"]) -> Batch:
    """Add a reward to each episode, earned by its last turn."""
    turns = turns_of(batch)
    last = turns.following(turns.number + 1.0) == 0
    shaped = batch.with_(
        turn_reward=batch.turn_reward + turns.spread(bonus[turns.episode] * last, batch)
    )
    return shaped.with_(reward=batch.reward + bonus)


def scale_rewards(factor: float) -> Transform:
    """Multiply all rewards, as code does that pays 10 for a win."""
    return stateless(
        lambda batch: batch.with_(
            reward=factor * batch.reward, turn_reward=factor * batch.turn_reward
        )
    )


def turn_scores(batch: Batch, turns: Turns, penalty: float) -> Float[Tensor, " K"]:
    """The episode's return on each of its turns, less ``penalty`` on those without an action.

    The score of a row in code that has one row per turn: a fine stays on its own turn.
    """
    malformed = (~turns.first(batch.parsed)).to(batch.reward)
    return batch.reward[turns.episode] - penalty * malformed


def malformed_penalty(penalty: float) -> Transform:
    """Take ``penalty`` from every turn that held no action."""

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        return add_turn_reward(
            batch, turns, -penalty * (~turns.first(batch.parsed)).to(batch.turn_reward)
        )

    return stateless(apply)


def overlong_penalty(longest: int, margin: int) -> Transform:
    """DAPO's overlong shaping: nothing up to ``longest - margin`` tokens, then a ramp to -1.

    Yu et al. 2025 (arXiv:2503.14476), eq. 13. Counts the tokens the policy wrote in the episode.
    """

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        length = turns.per_episode(turns.length.to(batch.reward), batch)
        return add_episode_reward(batch, overlong(length, longest, margin))

    return stateless(apply)


def overlong(length: Float[Tensor, " E"], longest: int, margin: int) -> Float[Tensor, " E"]:
    """The penalty for a length in tokens, in [-1, 0]."""
    return -((length - (longest - margin)) / margin).clamp(0, 1)
