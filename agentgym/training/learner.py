"""Optimiser steps on a batch; knows losses, not algorithms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from agentgym.algorithm import Algorithm, CriticPlan, Update
from agentgym.batch.batch import REFERENCE, VALUE, Batch
from agentgym.batch.prefix_tree import beginnings, split
from agentgym.errors import TrainingError
from agentgym.losses.compose import Outputs
from agentgym.losses.reductions import Reduction
from agentgym.models.lora import own, twin
from agentgym.models.out_of_memory import enough_memory
from agentgym.models.policy import Critic, Policy
from agentgym.settings import OptimizerSettings
from agentgym.training.metrics import gradient_norms, of_pulls, pull

REMEDY = (
    "lower `--optimizer.microbatch-tokens`, or `--rollout.max-context-tokens` if an episode alone "
    "is as long; `--optimizer.gradient-checkpointing` and `--lora.rank` need less, too"
)
PROBE = 2048
"""Tokens of the rows on which the parts of a loss are measured apart."""


class NotFinite(TrainingError):
    """A loss or a gradient is no finite number; the optimiser step was not taken.

    Args:
        what: Name of the number.
        value: What it is.
        batch: The minibatch, with all its columns.
        update: Name of the update.
        step: Training step.
    """

    def __init__(self, what: str, value: float, batch: Batch, update: str, step: int) -> None:
        super().__init__(
            f"{what} of update {update!r} at step {step} is {value}: the step was not taken"
        )
        self.batch = batch
        self.update = update
        self.step = step


class Learner:
    """A policy and its optimiser; beside them the critic and the reference some algorithms need.

    Args:
        policy: Whose weights change.
        how: Learning rate and what goes with it.
        seed: Of the order of minibatches.
        horizon: Training steps there will be; the learning rate falls towards the last of them.
    """

    def __init__(
        self,
        policy: Policy,
        how: OptimizerSettings | None = None,
        *,
        seed: int = 0,
        horizon: int | None = None,
    ) -> None:
        self.policy = policy
        self.how = how or OptimizerSettings()
        self.horizon = horizon
        if self.how.gradient_checkpointing:
            policy.recompute()
        self.optimiser = torch.optim.AdamW(
            [p for p in policy.model.parameters() if p.requires_grad],
            lr=self.how.learning_rate,
            weight_decay=self.how.weight_decay,
            betas=(0.9, 0.95),
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.taken = 0
        """Optimiser steps taken."""
        self.critic: _TrainedCritic | None = None
        self.reference: Policy | None = None
        self.asked: tuple[Reduction, ...] = ()
        """What credit asks of the vocabulary."""

    def attach(self, algorithm: Algorithm) -> None:
        """Make the critic and the reference that an algorithm asks for, from the policy as it is.

        Raises:
            TrainingError: There is one already: a learner serves one algorithm.
        """
        if self.critic is not None or self.reference is not None:
            raise TrainingError("this learner serves another algorithm: make a new `Learner`")
        self.asked = algorithm.credit.reductions
        if algorithm.critic is not None:
            self.add_critic(algorithm.critic)
        if algorithm.reference:
            frozen = twin(self.policy.model).requires_grad_(False)
            self.reference = Policy(frozen, temperature=self.policy.temperature)

    def add_critic(self, plan: CriticPlan) -> None:
        """Make a critic, from the policy as it is."""
        self.critic = _TrainedCritic(Critic(self.policy), plan)

    def observe(self, batch: Batch) -> Batch:
        """The batch with what the networks say about its tokens, before any update."""
        outputs = self._look(batch, self.asked)
        extra = dict(outputs.extra)
        if outputs.value is not None:
            extra[VALUE] = outputs.value
        if self.reference is not None:
            extra[REFERENCE] = self._look(batch, policy=self.reference).logprob
        return batch.with_(logprob=outputs.logprob, entropy=outputs.entropy, **extra)

    @contextmanager
    def _pass(self, batch: Batch) -> Iterator[Batch]:
        """A part of a batch that is read at once, where the network is."""
        with enough_memory(f"a pass of {len(batch.tokens)} tokens", REMEDY):
            yield batch.to(self.policy.device)

    def _look(
        self, batch: Batch, asked: Sequence[Reduction] = (), *, policy: Policy | None = None
    ) -> Outputs:
        """What the networks say about all rows, without a gradient, on the CPU."""
        order = list(self._passes(batch))
        with torch.no_grad():
            parts = []
            for index in order:
                with self._pass(batch.rows(index)) as part:
                    parts.append(self._outputs(part, asked, policy=policy))
        logprob, entropy, value, extra = zip(*parts, strict=True)
        back = batch.places(torch.cat(order)).argsort()

        def joined(columns: Iterable[Tensor]) -> Tensor:
            return torch.cat(list(columns)).cpu()[back]

        return Outputs(
            joined(logprob),
            joined(entropy),
            None if value[0] is None else joined(value),
            {name: joined(part[name] for part in extra) for name in extra[0]},
        )

    def _passes(self, batch: Batch) -> Iterator[Int[Tensor, " M"]]:
        return passes(batch, self.how.microbatch_tokens, shares=self.policy.shares)

    def _outputs(
        self, batch: Batch, asked: Sequence[Reduction] = (), *, policy: Policy | None = None
    ) -> Outputs:
        where, low = self.policy.device.type, torch.bfloat16
        with torch.autocast(where, low, enabled=self.how.bf16):
            outputs = (policy or self.policy)(batch, asked)
            if self.critic is None or policy is not None:
                return outputs
            return outputs._replace(value=self.critic.network(batch))

    def update(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Take the optimiser steps of one update; returns their mean metrics.

        Without a row that takes part and has weight there is nothing to learn, and no step.

        Raises:
            NotFinite: A loss or a gradient is no finite number.
        """
        weights = torch.stack([batch.column(term.weight) for term in update.loss.terms()]).sum(0)
        rows = update.rows(batch) & (row_weight(batch, weights) > 0)
        if not rows.any():
            return {}
        sums: dict[str, float] = {}
        count = 0
        norms: dict[str, float] = {}
        for epoch in range(update.epochs):
            shares = list(self._minibatches(batch, rows, update.minibatches))
            for index in shares:
                with enough_memory("an optimiser step", REMEDY):
                    part = self.prepare(batch.rows(index), update)
                    if epoch == update.epochs - 1 and index is shares[-1]:
                        norms = self._apart(part, update, step)
                    metrics = self._step(part, update, step)
                count += 1
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
        means = norms | {name: value / count for name, value in sums.items()}
        return {f"{update.name}/{name}": value for name, value in means.items()}

    def _apart(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Gradient norm of each part of the loss, where there are several, on a few of the rows.

        It is measured before the last optimiser step of an update: before the first, where every
        ratio is 1, a penalty on moving away has no gradient yet. The rows are taken at even
        distances, ``PROBE`` tokens or one.
        """
        if len(list(update.loss.apart())) < 2:
            return {}
        rows = max(1, len(batch) * PROBE // len(batch.tokens))
        index = torch.linspace(0, len(batch) - 1, min(rows, len(batch))).round().long()
        part = batch.rows(index).to(self.policy.device)
        outputs = self._outputs(part, update.loss.asks())
        parameters = [p for p in self.policy.model.parameters() if p.requires_grad]
        norms = gradient_norms(update.loss, outputs, part, step, parameters)
        return {f"norm/{name}": value for name, value in norms.items()}

    def prepare(self, batch: Batch, update: Update) -> Batch:
        """A minibatch with the columns that depend on the policy as it is now."""
        if update.select is None:
            return batch
        return update.select.apply(self._look(batch, update.loss.asks()), batch, self.generator)

    def gradient(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Add the gradient of the weighted loss to the parameters; the split never changes it."""
        shares = {term.weight: batch.column(term.weight).sum() for term in update.loss.terms()}
        terms = [term for term in update.loss.terms() if shares[term.weight] > 0]
        total = {"loss": 0.0, "kl": 0.0, "clipped": 0.0}
        pulls = []
        for index in self._passes(batch):
            with self._pass(batch.rows(index)) as part:
                outputs = self._outputs(part, update.loss.asks())
                losses = []
                for term in terms:
                    weight = part.column(term.weight) / shares[term.weight].to(part.weight.device)
                    losses.append((term.apply(outputs, part, step) * weight).sum())
                loss = sum(losses[1:], start=losses[0])
                pulls.append(pull(update.loss, outputs, part, step))
                loss.backward()  # type: ignore[no-untyped-call]
                total["loss"] += loss.item()
                weight = part.weight / batch.weight.sum().clamp(min=1e-12).to(part.weight.device)
                for name, value in _drift(outputs, part).items():
                    total[name] += float((value * weight).sum())
        return total | of_pulls(pulls)

    def _step(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        self.optimiser.zero_grad()
        if self.critic is not None:
            self.critic.optimiser.zero_grad()
        metrics = self.gradient(batch, update, step) | self._clip()
        for name in ("loss", *(name for name in metrics if name.endswith("grad_norm"))):
            if not math.isfinite(metrics[name]):
                raise NotFinite(name, metrics[name], batch, update.name, step)
        self.taken += 1
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        self.optimiser.step()
        if self.critic is not None:
            self.critic.optimiser.step()
        return metrics

    def _clip(self) -> dict[str, float]:
        """Bound the gradients; returns their norms before that."""
        norm = torch.nn.utils.clip_grad_norm_(
            self.policy.model.parameters(), self.how.max_grad_norm
        )
        critic = {} if self.critic is None else {"critic_grad_norm": self.critic.clip()}
        return {"grad_norm": float(norm), **critic}

    def _rate(self, step: int) -> float:
        """Learning rate of the next optimiser step, in a training step counted from 0."""
        rise = min(1.0, self.taken / max(1, self.how.warmup_steps))
        gone = step / self.horizon if self.horizon else 0.0
        return self.how.learning_rate * rise * (1 - (1 - self.how.final_lr_ratio) * gone)

    def _minibatches(self, batch: Batch, rows: Tensor, count: int) -> Iterator[Tensor]:
        """Disjoint shares of the episodes, in random order; an episode's rows stay together."""
        episodes = torch.unique(batch.episode[rows])
        order = episodes[torch.randperm(len(episodes), generator=self.generator)]
        for share in order.tensor_split(min(count, len(order))):
            yield (torch.isin(batch.episode, share) & rows).nonzero().squeeze(-1)

    def state(self) -> dict[str, Any]:
        """Everything but the weights that a resumed run needs."""
        state = {
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "taken": self.taken,
        }
        if self.critic is not None:
            state["critic"] = own(self.critic.network.model, self.policy.model)
            state["critic_optimiser"] = self.critic.optimiser.state_dict()
        if self.reference is not None:
            state["reference"] = own(self.reference.model, self.policy.model)
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.taken = state["taken"]
        if self.critic is not None:
            self.critic.network.model.load_state_dict(state["critic"], strict=False)
            self.critic.optimiser.load_state_dict(state["critic_optimiser"])
        if self.reference is not None:
            self.reference.model.load_state_dict(state["reference"], strict=False)


class _TrainedCritic:
    """A critic and its optimiser."""

    def __init__(self, network: Critic, plan: CriticPlan) -> None:
        self.network = network
        self.plan = plan
        self.optimiser = torch.optim.AdamW(
            [p for p in network.model.parameters() if p.requires_grad],
            lr=plan.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.95),
        )

    def clip(self) -> float:
        """Bound the gradient; returns its norm before that."""
        parameters = self.network.model.parameters()
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.plan.max_grad_norm))


def row_weight(batch: Batch, weight: Tensor) -> Tensor:
    """Share of the loss that each row has, (N,), from a column of weights."""
    return weight.new_zeros(len(batch)).index_add_(0, batch.row, weight)


def passes(batch: Batch, tokens: int, *, shares: bool) -> Iterator[Int[Tensor, " M"]]:
    """Rows in runs of at most ``tokens`` tokens, or one row if that is longer.

    With ``shares``, rows that begin alike come together, and what they share counts once. Where a
    run ends between such rows, the next one computes what they share again: its gradient is then a
    sum of two parts instead of one, so the split never changes it. Without, rows keep their order.
    """
    rows = split(batch.tokens, batch.lengths)
    run: list[int] = []
    used = 0
    for index, shared in beginnings(rows) if shares else ((n, 0) for n in range(len(rows))):
        new = len(rows[index]) - shared
        if run and used + new > tokens:
            yield torch.tensor(run)
            run, used, new = [], 0, len(rows[index])
        run.append(index)
        used += new
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
