"""Metrics of training, which every run logs, whatever its algorithm; each is a pure function.

Prefixes name what was measured: ``episode/`` and ``group/`` the episodes of a step, ``policy/`` the
policy on its own tokens before the update, ``credit/`` advantages and weights, the name of an
update the effect of its loss on each token. Alarms on them: ``agentgym.training.alarms``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from statistics import fmean, stdev

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.batch.collate import returns_differ
from agentgym.credit.transforms import mean_of_episode
from agentgym.losses.compose import Loss, Outputs
from agentgym.losses.surrogates import ratio
from agentgym.training.mismatch import mismatch
from agentgym.types import Stop, Trajectory

TOLERANCE = 1e-3
"""Relative difference from which two numbers count as different."""


# ---- episodes ------------------------------------------------------------------------------------


def group_metrics(groups: Sequence[Sequence[Trajectory]]) -> dict[str, float]:
    """Metrics of the episodes of each task, without those that a broken environment ended.

    ``policy/entropy_sampled``: the engine's mean entropy at sampling over the trained tokens, in
    nats. ``group/tied``: share of groups whose returns are all equal, from which nothing is
    learned. ``group/identical``: share of groups of several episodes in which all act the same.
    ``group/prefixes``: mean number of distinct action prefixes of a group.
    ``group/task_information``: see ``task_information``.
    """
    scored = [kept for group in groups if (kept := [t for t in group if t.stop.scored])]
    if not scored:
        return {}
    acts = [[tuple(turn.action for turn in t.turns) for t in group] for group in scored]
    several = [group for group in acts if len(group) > 1]
    found = {
        "group/tied": _mean(not returns_differ(group) for group in scored),
        "group/prefixes": _mean(
            len({act[:k] for act in group for k in range(1, len(act) + 1)}) for group in acts
        ),
    }
    entropies = [
        entropy
        for group in scored
        for t in group
        for turn in t.turns
        if turn.learn
        for entropy in turn.completion.entropies
    ]
    if entropies:
        found["policy/entropy_sampled"] = _mean(entropies)
    if several:
        found["group/identical"] = _mean(len(set(group)) == 1 for group in several)
    if len(acts) > 1:
        found["group/task_information"] = task_information(acts)
    return found


def task_information(groups: Sequence[Sequence[Hashable]]) -> float:
    """Mutual information of group and member over the entropy of the group, in [0, 1].

    1 where a member identifies its group, 0 where all groups hold the same. It is estimated from
    counts, which is too high for few members. A policy that plays the same episodes whatever the
    task has collapsed to a template, even while its entropy is high.

    Args:
        groups: Two or more, none empty.

    Source:
        Wang et al. 2025 (arXiv:2504.20073) describe the collapse; the plug-in estimate is ours.
    """
    every = [member for group in groups for member in group]
    within = sum(len(group) * _entropy(group) for group in groups) / len(every)
    sizes = [k for k, group in enumerate(groups) for _ in group]
    return max(0.0, _entropy(every) - within) / _entropy(sizes)


def _entropy(values: Sequence[Hashable]) -> float:
    shares = [count / len(values) for count in Counter(values).values()]
    return -sum(share * math.log(share) for share in shares)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


# ---- tokens before the update --------------------------------------------------------------------


def credit_metrics(batch: Batch) -> dict[str, float]:
    """Metrics of advantages and weights over the policy's tokens; empty without tokens.

    ``credit/masked``: share of tokens with weight 0. ``credit/reweighted``: share of tokens whose
    advantage differs from the mean of their episode. ``credit/net``: mean advantage by weight; far
    from 0, the update pushes all tokens up or down. ``policy/surprisal``: mean negative
    log-probability, an estimate of the entropy from one sample, in nats.
    ``policy/entropy_push``: see ``entropy_push``.
    """
    inside = batch.mask
    if not inside.any():
        return {}
    advantage = batch.advantage[inside]
    mean = mean_of_episode(batch.advantage, batch)[batch.episode_of_token[inside]]
    reweighted = (advantage - mean).abs() > TOLERANCE * mean.abs() + 1e-9
    return {
        "credit/masked": _share(batch.weight[inside] == 0),
        "credit/reweighted": _share(reweighted),
        "credit/net": _weighted_mean(advantage, batch.weight[inside]),
        "policy/surprisal": -float(batch.logprob[inside].mean()),
        "policy/entropy_push": entropy_push(batch),
    }


def _weighted_mean(values: Float[Tensor, " T"], weights: Float[Tensor, " T"]) -> float:
    total = float(weights.sum())
    return float((weights * values).sum()) / total if total else 0.0


def entropy_push(batch: Batch) -> float:
    """Predicted change of entropy per unit of a step along the advantages, in nats.

    Minus the covariance of log-probability and advantage over the tokens on the mask: likely
    tokens with a positive advantage lower the entropy. First order, and as if each token's logit
    moved by its advantage times the step size.

    Source:
        Cui et al. 2025 (arXiv:2505.22617), the covariance that Clip-Cov bounds.
    """
    advantage, logprob = batch.advantage[batch.mask], batch.logprob[batch.mask]
    return -float(((advantage - advantage.mean()) * (logprob - logprob.mean())).mean())


# ---- tokens in the update ------------------------------------------------------------------------


def token_coefficients(
    loss: Loss, outputs: Outputs, batch: Batch, step: int
) -> Float[Tensor, "2 P"]:
    """Gradient of the first part of a loss, its surrogate, with respect to each log-probability.

    Returns:
        The coefficient, and that of the unclipped surrogate: minus ratio times advantage. Both are
        0 without weight or advantage. The gradient of the networks is left alone.
    """
    surrogate = next(loss.apart())
    apart = outputs.detached()
    value = surrogate.apply(apart, batch, step).sum()
    found = None
    if value.requires_grad:
        (found,) = torch.autograd.grad(value, apart.logprob, allow_unused=True)
    coefficient = torch.zeros_like(batch.advantage) if found is None else found
    unclipped = -ratio(apart, batch).detach() * batch.advantage
    return torch.stack([coefficient, unclipped]) * _moved_by(loss, batch)


def coefficient_metrics(
    coefficients: Float[Tensor, "2 P"], loss: Loss, batch: Batch
) -> dict[str, float]:
    """Tokens that the loss stops, or moves by another factor than the others.

    ``stopped_positive``: share of the tokens with a positive advantage whose gradient a clip or a
    mask sets to 0; ``stopped_negative``: the same for a negative advantage. ``reweighted``: share
    of the tokens with a gradient whose coefficient, divided by that of the unclipped surrogate,
    differs from the median of this quotient.

    Args:
        coefficients: See ``token_coefficients``.
        loss: The loss.
        batch: The minibatch.
    """
    at = _moved_by(loss, batch)
    (coefficient, unclipped), advantage = coefficients[:, at], batch.advantage[at]
    stopped = coefficient == 0
    quotient = (coefficient / unclipped)[~stopped]
    usual = quotient.median() if len(quotient) else torch.ones(())
    reweighted = (quotient - usual).abs() > TOLERANCE * usual.abs()
    return {
        "stopped_positive": _share(stopped[advantage > 0]),
        "stopped_negative": _share(stopped[advantage < 0]),
        "reweighted": _share(reweighted),
    }


def _moved_by(loss: Loss, batch: Batch) -> Bool[Tensor, " P"]:
    """Tokens with weight and advantage in the surrogate."""
    surrogate = next(loss.apart())
    return (batch.column(surrogate.weight) > 0) & (batch.advantage != 0)


def gradient_norms(
    loss: Loss, outputs: Outputs, batch: Batch, step: int, parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Norm of the gradient of each part of a loss by name; parts of one name are summed.

    A part without a gradient, such as a constant penalty, has norm 0. Each part takes a backward
    pass, so this is for a sample of the rows.
    """
    totals: dict[str, Tensor] = {}
    for part in loss.apart():
        weight = batch.column(part.weight)
        divisor = part.divisor(batch, part.weight).clamp(min=1e-12)
        value = part.apply(outputs, batch, step) * weight / divisor
        totals[part.name] = (
            totals.get(part.name, torch.zeros((), device=value.device)) + value.sum()
        )
    return {name: _norm(total, outputs, parameters) for name, total in totals.items()}


def _norm(total: Tensor, outputs: Outputs, parameters: Sequence[Tensor]) -> float:
    if not total.requires_grad:
        return 0.0
    columns = [
        t for t in (outputs.logprob, outputs.entropy, *outputs.extra.values()) if t.requires_grad
    ]
    by_token = torch.autograd.grad(total, columns, retain_graph=True, allow_unused=True)
    moving = [(t, g) for t, g in zip(columns, by_token, strict=True) if g is not None and g.any()]
    if not moving:
        return 0.0
    tokens, gradients = zip(*moving, strict=True)
    found = torch.autograd.grad(tokens, parameters, gradients, retain_graph=True, allow_unused=True)
    return float(torch.nn.utils.get_total_norm([g for g in found if g is not None]))


def _share(holds: Tensor) -> float:
    return float(holds.float().mean()) if len(holds) else 0.0


def episode_metrics(groups: Sequence[Sequence[Trajectory]]) -> dict[str, float]:
    """Means over the scored episodes, and per task the episodes that were forked off another.

    ``episode/success_error``: standard error of the success, from the means of the tasks, because
    episodes of one task are not independent; absent for a single task.
    """
    scored = [[t for t in group if t.stop.scored] for group in groups]
    episodes = [t for group in scored for t in group]
    metrics = _failed_attempts([t for group in groups for t in group])
    if not episodes:
        return metrics
    turns = [turn for t in episodes for turn in t.turns]
    count, acts = len(episodes), max(1, len(turns))
    by_task = [fmean(t.won for t in group) for group in scored if group]
    if len(by_task) > 1:
        metrics["episode/success_error"] = stdev(by_task) / math.sqrt(len(by_task))
    return metrics | {
        "episode/success": sum(t.won for t in episodes) / count,
        "episode/score": sum(t.score for t in episodes) / count,
        "episode/reward": sum(t.reward for t in episodes) / count,
        "episode/turns": len(turns) / count,
        "episode/parsed": sum(turn.parsed for turn in turns) / acts,
        "episode/cut": sum(turn.completion.finish == "length" for turn in turns) / acts,
        "episode/valid": sum(turn.valid for turn in turns) / acts,
        "episode/truncated": sum(t.stop is not Stop.TERMINATED for t in episodes) / count,
        "group/forks": sum(t.shared_turns > 0 for t in episodes) / len(scored),
        "group/reused_turns": sum(t.shared_turns for t in episodes) / acts,
    }


def staleness(groups: Sequence[Sequence[Trajectory]], step: int) -> dict[str, float]:
    """Age in steps of the weights that sampled each token; empty without tokens."""
    ages = [
        step - version
        for group in groups
        for episode in group
        for turn in episode.turns
        if turn.learn and episode.stop.scored
        for version in turn.completion.token_versions
    ]
    if not ages:
        return {}
    return {"policy/staleness": fmean(ages), "policy/staleness_max": float(max(ages))}


def _failed_attempts(episodes: Sequence[Trajectory]) -> dict[str, float]:
    """Attempts ended by environment or engine, and episodes lost after the last attempt."""
    last = [t.stop for t in episodes if not t.stop.scored]
    seen = Counter([stop for t in episodes for stop in t.failed_attempts] + last)
    kinds = {f"attempts/{stop}": float(seen[stop]) for stop in Stop if not stop.scored}
    return {"episode/lost": float(len(last))} | kinds


def batch_metrics(batch: Batch) -> dict[str, float]:
    """Entropy of the policy on its own tokens, and mismatch between engine and trainer."""
    mask = batch.mask
    gap = (batch.logprob - batch.logprob_sampled)[mask].abs()
    return {
        "policy/entropy": float(batch.entropy[mask].mean()),
        "policy/logprob_gap": float(gap.mean()) if len(gap) else 0.0,
        "policy/mismatch": mismatch(batch),
        "policy/logprob_gap_max": float(gap.max()) if len(gap) else 0.0,
        "tokens/sampled": float(mask.sum()),
    }
