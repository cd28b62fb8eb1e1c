"""One configuration of an algorithm under test, on a network as small as they come."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from agentgym.algorithm import DEFAULT_RUN, Algorithm, CriticPlan
from agentgym.batch.batch import Batch
from agentgym.batch.collate import collate
from agentgym.credit.transforms import State
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.testing.episodes import STEPS, made_up
from agentgym.training.learner import Learner
from agentgym.types import Trajectory

_OBSERVED: dict[tuple[str, CriticPlan | None, bool], list[Batch]] = {}


class Trial:
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
            steps = (made_up(n, wanted, windowed=windowed) for n, wanted in enumerate(STEPS))
            self._seen[windowed] = self.observed(f"steps, windowed {windowed}", steps)
        return self._seen[windowed]

    def observed(self, name: str, cases: Iterable[Sequence[Sequence[Trajectory]]]) -> list[Batch]:
        """Batches as a fresh learner receives them, one for the groups of each case.

        They depend on the networks and the reductions that an algorithm asks for. Algorithms
        without reductions share them by ``name``, each with a copy of its own.
        """
        key = name, self.algorithm.critic, self.algorithm.reference
        if self.algorithm.credit.reductions or key not in _OBSERVED:
            learner = self.learner()
            found = [learner.observe(collate(groups)) for groups in cases]
            if self.algorithm.credit.reductions:
                return found
            _OBSERVED[key] = found
        return copy.deepcopy(_OBSERVED[key])

    def credit(self, batches: list[Batch]) -> tuple[list[Batch], State]:
        """Credit of one batch after the other, as in training."""
        state, found = self.algorithm.credit.init(), []
        for step, batch in enumerate(batches):
            batch, state = self.algorithm.credit.apply(batch, state, step)
            found.append(batch)
        return found, state

    def require(self, holds: bool, message: str) -> None:
        """Like ``assert``, which ``python -O`` would remove, with the name in front."""
        require(holds, f"{self.name}: {message}")


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


def same(trial: Trial, found: list[Batch], expected: list[Batch], message: str) -> None:
    """Require equal columns on the mask, whatever the order of rows."""
    for one, other in zip(found, expected, strict=True):
        left, right = _canonical(one), _canonical(other)
        for name in left:
            close = left[name].shape == right[name].shape and torch.allclose(
                left[name].float(), right[name].float(), atol=1e-5, equal_nan=True
            )
            trial.require(close, f"column {name!r} {message}")


def littered(batch: Batch, names: Iterable[str]) -> Batch:
    """The batch with junk off the mask, in columns of the engine and in those named."""
    changed = ("logprob_sampled", "logprob", "entropy", *names)
    return batch.with_(
        **{name: torch.where(batch.mask, batch.column(name), 7.0) for name in changed}
    )


def require(holds: bool, message: str) -> None:
    """Like ``assert``, which ``python -O`` would remove."""
    if not holds:
        raise AssertionError(message)
