"""Optimiser steps on a batch; knows losses, not algorithms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from agentgym.algorithm import Update
from agentgym.batch import Batch
from agentgym.losses import Outputs
from agentgym.policy import Policy
from agentgym.settings import Optimisation


class Learner:
    """A policy and its optimiser.

    Args:
        policy: Whose weights change.
        how: Learning rate and what goes with it.
        seed: Of the order of minibatches.
        horizon: Training steps there will be; the learning rate falls towards the last of them.
    """

    def __init__(
        self,
        policy: Policy,
        how: Optimisation | None = None,
        *,
        seed: int = 0,
        horizon: int | None = None,
    ) -> None:
        self.policy = policy
        self.how = how or Optimisation()
        self.horizon = horizon
        self.optimiser = torch.optim.AdamW(
            policy.model.parameters(),
            lr=self.how.learning_rate,
            weight_decay=self.how.weight_decay,
            betas=(0.9, 0.95),
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.taken = 0
        """Optimiser steps taken."""

    def observe(self, batch: Batch) -> Batch:
        """The batch with the policy's own log-probabilities and entropies, before any update."""
        parts = []
        with torch.no_grad():
            for index in passes(batch, self.how.tokens_per_pass):
                parts.append(self.policy(batch.rows(index).to(self.policy.device)))
        return batch.with_(
            logprob=torch.cat([part.logprob.cpu() for part in parts]),
            entropy=torch.cat([part.entropy.cpu() for part in parts]),
        )

    def update(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Take the optimiser steps of one update; returns their mean metrics.

        Without a row that takes part and has weight there is nothing to learn, and no step.
        """
        rows = update.rows(batch) & (row_weight(batch) > 0)
        if not rows.any():
            return {}
        sums: dict[str, float] = {}
        count = 0
        for _ in range(update.epochs):
            for index in self._minibatches(batch, rows, update.minibatches):
                metrics = self._step(batch.rows(index), update, step)
                count += 1
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
        return {f"{update.name}/{name}": value / count for name, value in sums.items()}

    def gradient(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Add the gradient of the weighted loss to the parameters; the split never changes it."""
        share = batch.weight.sum()
        total = {"loss": 0.0, "kl": 0.0, "clipped": 0.0}
        for index in passes(batch, self.how.tokens_per_pass):
            part = batch.rows(index).to(self.policy.device)
            outputs = self.policy(part)
            weight = part.weight / share.to(part.weight.device)
            loss = (update.loss.apply(outputs, part, step) * weight).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total["loss"] += loss.item()
            for name, value in _drift(outputs, part).items():
                total[name] += float((value * weight).sum())
        return total

    def _step(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        self.optimiser.zero_grad()
        metrics = self.gradient(batch, update, step)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), self.how.clip_norm)
        self.taken += 1
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        self.optimiser.step()
        return {**metrics, "grad_norm": float(norm)}

    def _rate(self, step: int) -> float:
        """Learning rate of the next optimiser step, in a training step counted from 0."""
        rise = min(1.0, self.taken / max(1, self.how.warmup))
        gone = step / self.horizon if self.horizon else 0.0
        return self.how.learning_rate * rise * (1 - (1 - self.how.final) * gone)

    def _minibatches(self, batch: Batch, rows: Tensor, count: int) -> Iterator[Tensor]:
        """Disjoint shares of the episodes, in random order; an episode's rows stay together."""
        episodes = torch.unique(batch.episode[rows])
        order = episodes[torch.randperm(len(episodes), generator=self.generator)]
        for share in order.tensor_split(min(count, len(order))):
            yield (torch.isin(batch.episode, share) & rows).nonzero().squeeze(-1)

    def state(self) -> dict[str, Any]:
        """Everything but the weights that a resumed run needs."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "taken": self.taken,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.taken = state["taken"]


def row_weight(batch: Batch) -> Tensor:
    """Share of the loss that each row has, (N,)."""
    return torch.zeros(len(batch)).index_add_(0, batch.row, batch.weight)


def passes(batch: Batch, tokens: int) -> Iterator[Int[Tensor, " M"]]:
    """Consecutive rows in runs of at most ``tokens`` tokens, or one row if that is longer."""
    run: list[int] = []
    used = 0
    for index, length in enumerate(batch.lengths.tolist()):
        if run and used + length > tokens:
            yield torch.tensor(run)
            run, used = [], 0
        run.append(index)
        used += length
    if run:
        yield torch.tensor(run)


def _drift(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """How far the policy has moved from the one before the update, per token.

    ``kl`` is the k3 estimate of KL(before || now) in nats (Schulman 2020, "Approximating KL
    divergence"): exp(d) - 1 - d with d = log now - log before, never negative.
    """
    move = (outputs.logprob - batch.logprob).detach()
    inside = batch.mask & (batch.logprob != 0)
    kl = (move.exp() - 1 - move) * inside
    return {"kl": kl, "clipped": ((move.exp() - 1).abs() > 0.2) & inside}
