"""Ways to turn rewards into advantages, besides the group mean in ``agentgym.credit.transforms``.

Axes: P positions, K turns, E episodes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from agentgym.batch.batch import VALUE, Batch
from agentgym.batch.turns import Turns, discounted_returns, turns_of
from agentgym.credit.reward_shaping import turn_scores
from agentgym.credit.transforms import Transform, centre, deviation_by, group_mean, stateless

RETURN = "critic/return"
"""Private column: regression target of the critic, in units of reward."""


def leave_one_out() -> Transform:
    """Return minus the mean return of the *other* episodes of the task (RLOO); alone, the return.

    Source: Ahmadian et al. 2024 (arXiv:2402.14740), section 3.2.
    """

    def apply(batch: Batch) -> Batch:
        value = _less_the_others(batch.reward, batch.group)
        return batch.with_(advantage=value[batch.episode_of_token] * batch.mask)

    return stateless(apply)


def leave_one_out_over_turns(*, malformed_penalty: float = 0.0) -> Transform:
    """The same with every turn a sample of its own, as in code that has one row per turn.

    Args:
        malformed_penalty: Taken from the score of a turn without an action, and of no other.
    """

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        score = turn_scores(batch, turns, malformed_penalty)
        value = _less_the_others(score, batch.group[turns.episode])
        return batch.with_(advantage=turns.spread(value, batch))

    return stateless(apply)


def _less_the_others(value: Float[Tensor, " K"], key: Int[Tensor, " K"]) -> Float[Tensor, " K"]:
    size = torch.bincount(key)[key]
    return torch.where(size > 1, centre(value, key) * size / (size - 1).clamp(min=1), value)


def group_advantage_over_turns(
    *, scale: bool = True, epsilon: float = 1e-6, malformed_penalty: float = 0.0
) -> Transform:
    """The group advantage with every *turn* a sample, as in code that has one row per turn.

    A long failure then has more weight in the mean than a short success. Standard deviation with
    one degree of freedom less; a group of a single turn keeps its score. Only for comparison with
    released code: ``credit.group_advantage`` counts episodes.

    Args:
        scale: Divide by the standard deviation.
        epsilon: Added to it, in units of reward.
        malformed_penalty: Taken from the score of a turn without an action, and of no other.
    """

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        score, group = turn_scores(batch, turns, malformed_penalty), batch.group[turns.episode]
        centred = centre(score, group)
        alone = torch.bincount(group)[group] == 1
        value = torch.where(alone, score, centred)
        if scale:
            deviation = deviation_by(centred, group, unbiased=True)
            value = value / (torch.where(alone, torch.ones_like(value), deviation) + epsilon)
        return batch.with_(advantage=turns.spread(value, batch))

    return stateless(apply)


def centre_over_tokens() -> Transform:
    """Subtract from each advantage the mean over all tokens of its task.

    Under a loss in which every token counts the same, the advantages of a task then sum to 0.
    Without it, tasks with long failures have a negative mean: the update is mostly about making
    what was done less likely.
    """

    def apply(batch: Batch) -> Batch:
        at = batch.mask.nonzero().squeeze(-1)
        inside = batch.advantage[at]
        centred = centre(inside, batch.group[batch.episode_of_token[at]])
        return batch.with_(advantage=torch.zeros_like(batch.advantage).index_put((at,), centred))

    return stateless(apply)


def returns_to_go(discount: float = 1.0) -> Transform:
    """The reward from the token's turn on, discounted by turn."""

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        found = discounted_returns(turns, turns.first(batch.turn_reward), discount)
        return batch.with_(advantage=turns.spread(found, batch))

    return stateless(apply)


def subtract_group_mean() -> Transform:
    """Subtract the mean return of the task's episodes from the advantage."""

    def apply(batch: Batch) -> Batch:
        baseline = group_mean(batch.reward, batch)[batch.episode_of_token]
        return batch.with_(advantage=(batch.advantage - baseline) * batch.mask)

    return stateless(apply)


def whiten(epsilon: float = 1e-8) -> Transform:
    """Centre and scale the advantage over all tokens of the batch; one token is only centred.

    Args:
        epsilon: Added to the variance, which has one degree of freedom less.
    """

    def apply(batch: Batch) -> Batch:
        return batch.with_(advantage=standardise(batch.advantage, batch, epsilon) * batch.mask)

    return stateless(apply)


def standardise(
    value: Float[Tensor, " P"], batch: Batch, epsilon: float = 1e-8
) -> Float[Tensor, " P"]:
    """Standard scores over the tokens on the mask, with one degree of freedom less.

    In double precision inside, as entropies may differ little from one another.
    """
    exact = value.double()
    inside = exact[batch.mask]
    if len(inside) < 2:
        return (value - inside.sum().to(value)) * batch.mask
    score = (exact - inside.mean()) * (inside.var() + epsilon).rsqrt()
    return score.to(value) * batch.mask


def gae(
    discount: float = 1.0,
    gae_lambda: float = 1.0,
    *,
    bootstrap: bool = False,
    per_turn: bool = False,
    malformed_penalty: float = 0.0,
) -> Transform:
    """GAE over the tokens an episode wrote, across its turns; writes the critic's target.

    ``A_t = d_t + discount * gae_lambda * A_{t+1}``, ``d_t = r_t + discount * V_{t+1} - V_t``; the
    reward of a turn arrives at its last token. What was read in between is no step. Source:
    Schulman et al. 2016 (arXiv:1506.02438), eq. 16.

    Args:
        discount: Per token, in (0, 1].
        gae_lambda: The lambda of GAE, in [0, 1].
        bootstrap: What follows an episode that a limit cut short is worth the critic's value
            before its last token; otherwise nothing, as after an end that the environment declared.
        per_turn: Every turn is an episode of its own that earns the whole return, as in code that
            has one row per turn; nothing follows it, so nothing is bootstrapped.
        malformed_penalty: Per turn: taken from the return of a turn without an action.
    """

    def apply(batch: Batch) -> Batch:
        turns = turns_of(batch)
        order = turns.turn.argsort(stable=True)
        at, turn = turns.at[order], turns.turn[order]
        end = torch.ones_like(turn, dtype=torch.bool)
        end[:-1] = turn[1:] != turn[:-1]
        owner = batch.episode_of_token[at]
        unit = turn if per_turn else owner
        value = batch.extra[VALUE][at]
        earned = batch.turn_reward[at]
        if per_turn:
            earned = turn_scores(batch, turns, malformed_penalty)[turn]
        cut = batch.truncated[owner] & bootstrap & (not per_turn)
        tokens = _Tokens(
            reward=(earned * end).tolist(),
            value=value.tolist(),
            unit=unit.tolist(),
            beyond=(value * cut).tolist(),
        )
        found = torch.tensor(_accumulate(tokens, discount, gae_lambda), dtype=value.dtype)
        advantage = torch.zeros_like(batch.extra[VALUE]).index_put((at,), found)
        target = (advantage + batch.extra[VALUE]) * batch.mask
        return batch.with_(advantage=advantage, **{RETURN: target})

    return stateless(apply, reads={VALUE}, writes={RETURN})


class _Tokens(NamedTuple):
    """Tokens in the order they were written, unit by unit."""

    reward: list[float]
    value: list[float]
    unit: list[int]
    beyond: list[float]
    """Value of what follows the token, if it is the last of its unit."""


def _accumulate(tokens: _Tokens, discount: float, gae_lambda: float) -> list[float]:
    """GAE from the last token to the first."""
    found = [0.0] * len(tokens.unit)
    after = following = 0.0
    for i in range(len(found) - 1, -1, -1):
        if i + 1 == len(found) or tokens.unit[i] != tokens.unit[i + 1]:
            after, following = 0.0, tokens.beyond[i]
        surprise = tokens.reward[i] + discount * following - tokens.value[i]
        found[i] = after = surprise + discount * gae_lambda * after
        following = tokens.value[i]
    return found


def step_groups(turns: Turns, batch: Batch) -> Int[Tensor, " K"]:
    """Number of the set of turns of one task that began with the same observation, per turn."""
    key = torch.stack([batch.group[turns.episode], turns.first(batch.observation_hash)])
    found: Tensor = torch.unique(key, dim=1, return_inverse=True)[1]
    return found
