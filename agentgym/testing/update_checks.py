"""Checks of an algorithm's updates: selection, gradients, finite numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from agentgym.algorithm import Update
from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.testing.episodes import STEPS, degenerate, made_up
from agentgym.testing.trial import Trial, littered, same
from agentgym.training.learner import Learner


def check_updates(trial: Trial) -> None:
    """What an update selects, and its gradient, depend on no junk and on no order of rows.

    The policy has moved since credit, so that ratios differ from 1. Columns of weights are 0 off
    the mask and stay so.
    """
    learner = trial.learner()
    learner.policy.shares_prefixes = False  # so that passes keep the order of rows
    batch = trial.credit(trial.batches(windowed=True))[0][-1]
    with torch.no_grad():
        for parameter in learner.policy.model.parameters():
            parameter.mul_(1.05)
    for update in trial.algorithm.updates:
        part = batch.rows(update.rows(batch).nonzero().squeeze(-1))
        if not len(part):
            continue
        weights = {term.weight for term in update.loss.terms()}
        junk = littered(part, set(part.extra) - weights)
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(5))
        clean, _ = prepared(learner, part, update)
        dirty, _ = prepared(learner, junk, update)
        shuffled, drawn = prepared(learner, part.rows(order), update)
        if drawn:
            # Another order draws other tokens, of the same number; then those of the first draw.
            _same_numbers(trial, shuffled, clean, update)
            shuffled = clean.rows(order)
        expected = gradient(learner, clean, update)
        for found, message in (
            (dirty, "depends on values off the mask"),
            (
                shuffled,
                "depends on the order of rows: find turns by batch.episode_of_token and batch.turn",
            ),
        ):
            same(trial, [found], [clean], f"of update {update.name!r} {message}")
            trial.require(
                gradient(learner, found, update).allclose(expected, atol=1e-5),
                f"the gradient of update {update.name!r} {message}",
            )


def prepared(learner: Learner, part: Batch, update: Update) -> tuple[Batch, bool]:
    """A minibatch with what is selected, from one state of the generator; whether it was used."""
    before = learner.generator.manual_seed(0).get_state()
    part = learner.prepare(part, update)
    return part, not learner.generator.get_state().equal(before)


def _same_numbers(trial: Trial, found: Batch, expected: Batch, update: Update) -> None:
    for name in update.select.writes if update.select else ():
        left, right = (b.column(name)[b.mask].sort().values for b in (found, expected))
        message = f"column {name!r} of update {update.name!r} draws as many in any order of rows"
        trial.require(left.allclose(right, atol=1e-5), message)


def gradient(learner: Learner, part: Batch, update: Update) -> Tensor:
    """Of all weights of the policy, and of the critic where there is one."""
    networks = [learner.policy.model]
    if learner.critic is not None:
        networks.append(learner.critic.network.model)
    for network in networks:
        network.zero_grad()
    learner.gradient(part, update, 2)
    parameters = [p for network in networks for p in network.parameters()]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def check_split(trial: Trial) -> None:
    """The gradient does not depend on how rows are split into passes."""
    learner = trial.learner()
    batch = trial.credit(trial.batches())[0][-1]
    for update in trial.algorithm.updates:
        part = batch.rows(update.rows(batch).nonzero().squeeze(-1))
        if not len(part):
            continue
        part = learner.prepare(part, update)
        gradients = []
        for size in (1, 100_000):
            learner.settings = replace(learner.settings, microbatch_tokens=size)
            gradients.append(gradient(learner, part, update))
        trial.require(
            torch.allclose(gradients[0], gradients[1], atol=1e-5),
            f"the gradient of update {update.name!r} depends on the split into passes: a loss "
            f"must see one token, or one turn, and take the rest from columns",
        )


def check_degenerate(trial: Trial) -> None:
    """Little or no information gives no numbers that are not finite."""
    for what, groups in degenerate():
        learner = trial.learner()
        (batch,) = trial.observed(what, [groups])
        batch, _ = trial.algorithm.credit.apply(batch, trial.algorithm.credit.init(), 0)
        finite = batch.advantage.isfinite().all() & batch.weight.isfinite().all()
        trial.require(bool(finite), f"{what}: credit is not finite")
        for update in trial.algorithm.updates:
            metrics = learner.update(batch, update, 0)
            good = all(math.isfinite(value) for value in metrics.values())
            trial.require(good, f"{what}: metrics of {update.name!r} are {metrics}")
        _finite_weights(trial, learner, what)


def _finite_weights(trial: Trial, learner: Learner, what: str) -> None:
    good = all(bool(p.isfinite().all()) for p in learner.policy.model.parameters())
    trial.require(good, f"{what}: the policy's weights are not finite after an update")


def check_learning(trial: Trial) -> None:
    """Three steps run, change the weights, and leave finite numbers."""
    learner = trial.learner()
    before = [p.clone() for p in learner.policy.model.parameters()]
    state = trial.algorithm.credit.init()
    for step, wanted in enumerate(STEPS):
        batch = learner.observe(collate(made_up(step, wanted)))
        batch, state = trial.algorithm.credit.apply(batch, state, step)
        for update in trial.algorithm.updates:
            metrics = learner.update(batch, update, step)
            good = all(math.isfinite(value) for value in metrics.values())
            trial.require(good, f"metrics of {update.name!r} are {metrics}")
    _finite_weights(trial, learner, "three steps")
    moved = any(
        not a.equal(b) for a, b in zip(before, learner.policy.model.parameters(), strict=True)
    )
    trial.require(moved, "three steps on mixed groups changed nothing: the loss has no gradient")
