"""Checks of an algorithm's configuration and of its credit."""

from __future__ import annotations

import io
import math

import torch
from torch import Tensor

from agentgym.batch.batch import Batch
from agentgym.errors import ConfigError
from agentgym.testing.trial import Trial, littered, same
from agentgym.utils import yaml_config as configs


def check_configuration(trial: Trial) -> None:
    """The configuration survives the trip to a file, and refuses what it does not know."""
    kind, made = type(trial.made), trial.made
    back = configs.decode(kind, configs.encode(made), where="trip")
    trial.require(back == made, f"comes back from a file as {back}: use frozen dataclass fields")
    try:
        configs.decode(kind, {"no_such_field": 1}, where="trip")
    except ConfigError:
        return
    raise AssertionError(f"{trial.name}: an unknown field was accepted")


def check_columns(trial: Trial) -> None:
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


def check_row_order(trial: Trial) -> None:
    """The order of rows does not matter."""
    batches = trial.batches(windowed=True)
    shuffled = [
        batch.rows(torch.randperm(len(batch), generator=torch.Generator().manual_seed(5)))
        for batch in batches
    ]
    message = "depends on the order of rows: find turns by batch.episode_of_token and batch.turn"
    same(trial, trial.credit(shuffled)[0], trial.credit(batches)[0], message)


def check_windows(trial: Trial) -> None:
    """Growing and windowed contexts give the same credit."""
    grown, windowed = trial.batches(), trial.batches(windowed=True)
    given = ("logprob", "entropy", *grown[0].extra)
    moved = [
        wide.with_(**{name: _moved(wide, long, name) for name in given})
        for wide, long in zip(windowed, grown, strict=True)
    ]
    message = "differs between growing and windowed contexts: take statistics over turns, not rows"
    same(trial, trial.credit(moved)[0], trial.credit(grown)[0], message)


def _moved(to: Batch, source: Batch, name: str) -> Tensor:
    column = torch.zeros(len(to.mask))
    column[to.mask] = source.column(name)[source.mask]
    return column


def check_junk(trial: Trial) -> None:
    """What stands off the mask never counts."""
    batches = trial.batches()
    junk = [littered(batch, batch.extra) for batch in batches]
    clean = trial.credit(batches)[0]
    same(trial, trial.credit(junk)[0], clean, "depends on values off the mask")


def check_state(trial: Trial) -> None:
    """The state of credit survives a checkpoint, and the run continues as if nothing happened."""
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
    same(trial, [resumed], [whole[2]], "differs after a checkpoint: keep all state in `init`")
