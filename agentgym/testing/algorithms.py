"""The contract of an algorithm, as checks that each name the likely cause of a violation."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, About, Algorithm, AlgorithmSettings, Update
from agentgym.batch.batch import Batch, collate
from agentgym.credit.transforms import State
from agentgym.errors import ConfigError
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.testing.episodes import STEPS, degenerate, made_up
from agentgym.training.learner import Learner
from agentgym.utils import yaml_config as configs


def check_algorithm(kind: type[AlgorithmSettings]) -> None:
    """Check everything that training relies on in an algorithm, for each of its constructors.

    Args:
        kind: Its configuration class, as registered under ``agentgym.algorithms``.

    Raises:
        AssertionError: The algorithm breaks its contract; the message names the likely cause.

    Examples:
        >>> from agentgym import plugins
        >>> check_algorithm(plugins.algorithm("grpo"))
    """
    _require(
        isinstance(getattr(kind, "about", None), About),
        f"{kind.__name__}.about must be an agentgym.algorithm.About",
    )
    trials: list[_Trial] = []
    for name in ("", "paper", "released"):
        _require(not name or hasattr(kind, name), f"{kind.__name__} has no constructor {name}()")
        made = getattr(kind, name)() if name else kind()
        if all(made != trial.made for trial in trials):
            trials.append(_Trial(f"{kind.__name__}.{name or '__init__'}", made))
    for trial in trials:
        for check in (
            _check_configuration,
            _check_columns,
            _check_row_order,
            _check_windows,
            _check_junk,
            _check_updates,
            _check_split,
            _check_degenerate,
            _check_state,
            _check_learning,
        ):
            check(trial)


class _Trial:
    """One configuration under test, with a network as small as they come."""

    def __init__(self, name: str, made: Any) -> None:
        self.name = name
        self.made = made
        self.algorithm: Algorithm = made.build(DEFAULT_RUN)
        self._seen: dict[bool, list[Batch]] = {}

    def learner(self) -> Learner:
        """A fresh one, always the same."""
        policy = Policy(copy.deepcopy(_network()))
        learner = Learner(policy, OptimizerSettings(learning_rate=1e-2), seed=3)
        learner.attach(self.algorithm)
        return learner

    def batches(self, *, windowed: bool = False) -> list[Batch]:
        """Three steps' batches as the learner receives them; the last has a tied group too."""
        if windowed not in self._seen:
            learner = self.learner()
            self._seen[windowed] = [
                learner.observe(collate(made_up(seed, wanted, windowed=windowed)))
                for seed, wanted in enumerate(STEPS)
            ]
        return self._seen[windowed]

    def credit(self, batches: list[Batch]) -> tuple[list[Batch], State]:
        """Credit of one batch after the other, as in training."""
        state, found = self.algorithm.credit.init(), []
        for step, batch in enumerate(batches):
            batch, state = self.algorithm.credit.apply(batch, state, step)
            found.append(batch)
        return found, state

    def require(self, holds: bool, message: str) -> None:
        """Like ``assert``, which ``python -O`` would remove, with the name in front."""
        _require(holds, f"{self.name}: {message}")


@cache
def _network() -> Any:
    """As small as they come, with weights large enough that tokens differ in entropy."""
    tokenizer = from_scratch.make_tokenizer(["".join(map(chr, range(97, 123)))] * 3, 300)
    shape = ScratchSettings(
        hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    return model


def _canonical(batch: Batch) -> dict[str, Tensor]:
    """Columns of the tokens on the mask by episode, turn and place, whatever rows they lie in."""
    at = batch.mask.nonzero().squeeze(-1)
    order = at[(batch.episode_of_token[at] * 1000 + batch.turn[at]).argsort(stable=True)]
    named = {"advantage": batch.advantage, "weight": batch.weight, **batch.extra}
    return {name: column[order] for name, column in named.items()}


def _same(
    trial: _Trial, found: list[Batch], expected: list[Batch], message: str, but: str = ""
) -> None:
    for one, other in zip(found, expected, strict=True):
        left, right = _canonical(one), _canonical(other)
        for name in left:
            close = left[name].shape == right[name].shape and torch.allclose(
                left[name].float(), right[name].float(), atol=1e-5, equal_nan=True
            )
            trial.require(close, f"column {name!r} {message}")


def _check_configuration(trial: _Trial) -> None:
    """The configuration survives the trip to a file, and refuses what it does not know."""
    kind, made = type(trial.made), trial.made
    back = configs.decode(kind, configs.encode(made), where="trip")
    trial.require(back == made, f"comes back from a file as {back}: use frozen dataclass fields")
    try:
        configs.decode(kind, {"no_such_field": 1}, where="trip")
    except ConfigError:
        return
    raise AssertionError(f"{trial.name}: an unknown field was accepted")


def _check_columns(trial: _Trial) -> None:
    """Weights are shares; nothing counts off the mask; all that is promised is written."""
    found, _ = trial.credit(trial.batches())
    for batch in found:
        missing = trial.algorithm.credit.writes - set(batch.extra)
        trial.require(not missing, f"promises the columns {sorted(missing)} and never writes them")
        for name in ("advantage", "weight"):
            column = batch.column(name)
            trial.require(bool(column.isfinite().all()), f"{name} is not finite")
            off = column[~batch.mask]
            trial.require(bool((off == 0).all()), f"{name} off the mask: multiply by batch.mask")
            trial.require(not column.requires_grad, f"{name} has a gradient: detach it")
        trial.require(bool((batch.weight >= 0).all()), "a weight is negative")
    total = float(found[0].weight.sum())
    trial.require(math.isclose(total, 1, abs_tol=1e-4), f"weights sum to {total}, expected 1")


def _check_row_order(trial: _Trial) -> None:
    """The order of rows does not matter."""
    batches = trial.batches(windowed=True)
    shuffled = [
        batch.rows(torch.randperm(len(batch), generator=torch.Generator().manual_seed(5)))
        for batch in batches
    ]
    message = "depends on the order of rows: find turns by batch.episode_of_token and batch.turn"
    _same(trial, trial.credit(shuffled)[0], trial.credit(batches)[0], message)


def _check_windows(trial: _Trial) -> None:
    """Growing and windowed contexts give the same credit."""
    grown, windowed = trial.batches(), trial.batches(windowed=True)
    given = ("logprob", "entropy", *grown[0].extra)
    moved = [
        wide.with_(**{name: _moved(wide, long, name) for name in given})
        for wide, long in zip(windowed, grown, strict=True)
    ]
    message = "differs between growing and windowed contexts: take statistics over turns, not rows"
    _same(trial, trial.credit(moved)[0], trial.credit(grown)[0], message)


def _moved(to: Batch, source: Batch, name: str) -> Tensor:
    column = torch.zeros(len(to.mask))
    column[to.mask] = source.column(name)[source.mask]
    return column


def _check_junk(trial: _Trial) -> None:
    """What stands off the mask never counts."""
    batches = trial.batches()
    junk = [_littered(batch, batch.extra) for batch in batches]
    clean = trial.credit(batches)[0]
    _same(trial, trial.credit(junk)[0], clean, "depends on values off the mask")


def _littered(batch: Batch, names: Iterable[str]) -> Batch:
    littered = ("logprob_sampled", "logprob", "entropy", *names)
    return batch.with_(
        **{name: torch.where(batch.mask, batch.column(name), 7.0) for name in littered}
    )


def _check_updates(trial: _Trial) -> None:
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
        littered = _littered(part, set(part.extra) - weights)
        order = torch.randperm(len(part), generator=torch.Generator().manual_seed(5))
        clean, _ = _prepared(learner, part, update)
        dirty, _ = _prepared(learner, littered, update)
        shuffled, drawn = _prepared(learner, part.rows(order), update)
        if drawn:
            # Another order draws other tokens, of the same number; then those of the first draw.
            _same_numbers(trial, shuffled, clean, update)
            shuffled = clean.rows(order)
        expected = _gradient(learner, clean, update)
        for found, message in (
            (dirty, "depends on values off the mask"),
            (
                shuffled,
                "depends on the order of rows: find turns by batch.episode_of_token and batch.turn",
            ),
        ):
            _same(trial, [found], [clean], f"of update {update.name!r} {message}")
            trial.require(
                _gradient(learner, found, update).allclose(expected, atol=1e-5),
                f"the gradient of update {update.name!r} {message}",
            )


def _prepared(learner: Learner, part: Batch, update: Update) -> tuple[Batch, bool]:
    """A minibatch with what is selected, from one state of the generator; whether it was used."""
    before = learner.generator.manual_seed(0).get_state()
    part = learner.prepare(part, update)
    return part, not learner.generator.get_state().equal(before)


def _same_numbers(trial: _Trial, found: Batch, expected: Batch, update: Update) -> None:
    for name in update.select.writes if update.select else ():
        left, right = (b.column(name)[b.mask].sort().values for b in (found, expected))
        message = f"column {name!r} of update {update.name!r} draws as many in any order of rows"
        trial.require(left.allclose(right, atol=1e-5), message)


def _gradient(learner: Learner, part: Batch, update: Update) -> Tensor:
    """Of all weights of the policy, and of the critic where there is one."""
    networks = [learner.policy.model]
    if learner.critic is not None:
        networks.append(learner.critic.network.model)
    for network in networks:
        network.zero_grad()
    learner.gradient(part, update, 2)
    parameters = [p for network in networks for p in network.parameters()]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def _check_split(trial: _Trial) -> None:
    """The gradient does not depend on how rows are split into passes."""
    learner = trial.learner()
    batch = trial.credit(trial.batches())[0][-1]
    for update in trial.algorithm.updates:
        part = batch.rows(update.rows(batch).nonzero().squeeze(-1))
        if not len(part):
            continue
        part = learner.prepare(part, update)
        gradients = []
        for size in (1, 30, 100_000):
            learner.settings = replace(learner.settings, microbatch_tokens=size)
            gradients.append(_gradient(learner, part, update))
        for other in gradients[:2]:
            trial.require(
                torch.allclose(other, gradients[2], atol=1e-5),
                f"the gradient of update {update.name!r} depends on the split into passes: a loss "
                f"must see one token, or one turn, and take the rest from columns",
            )


def _check_degenerate(trial: _Trial) -> None:
    """Little or no information gives no numbers that are not finite."""
    for what, groups in degenerate():
        learner = trial.learner()
        batch = learner.observe(collate(groups))
        batch, _ = trial.algorithm.credit.apply(batch, trial.algorithm.credit.init(), 0)
        finite = batch.advantage.isfinite().all() & batch.weight.isfinite().all()
        trial.require(bool(finite), f"{what}: credit is not finite")
        for update in trial.algorithm.updates:
            metrics = learner.update(batch, update, 0)
            good = all(math.isfinite(value) for value in metrics.values())
            trial.require(good, f"{what}: metrics of {update.name!r} are {metrics}")
        _finite_weights(trial, learner, what)


def _finite_weights(trial: _Trial, learner: Learner, what: str) -> None:
    good = all(bool(p.isfinite().all()) for p in learner.policy.model.parameters())
    trial.require(good, f"{what}: the policy's weights are not finite after an update")


def _check_state(trial: _Trial) -> None:
    """The state of credit survives a checkpoint, and the run goes on as if nothing happened."""
    batches = trial.batches()
    whole, _ = trial.credit(batches)
    _, state = trial.credit(batches[:2])
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        state = torch.load(file, weights_only=True)
    except Exception as problem:
        raise AssertionError(
            f"{trial.name}: the state of credit must be tensors, numbers, strings, tuples, lists "
            f"and dictionaries, so that a checkpoint can hold it: {problem}"
        ) from problem
    resumed, _ = trial.algorithm.credit.apply(batches[2], state, 2)
    _same(trial, [resumed], [whole[2]], "differs after a checkpoint: keep all state in `init`")


def _check_learning(trial: _Trial) -> None:
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


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
