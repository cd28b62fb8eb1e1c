"""Optimizer steps on a batch; knows losses, not algorithms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.algorithm import Algorithm, CriticPlan, Update
from agentgym.batch.batch import REFERENCE, VALUE, Batch
from agentgym.errors import TrainingError
from agentgym.losses.compose import Outputs
from agentgym.losses.reductions import Reduction
from agentgym.models.lora import saved_weights, trainable_copy
from agentgym.models.out_of_memory import explain_out_of_memory
from agentgym.models.policy import Critic, Policy
from agentgym.models.precision import compute_dtype, keep_trained_weights_in_float32
from agentgym.models.protocols import CausalLM
from agentgym.settings import OptimizerSettings
from agentgym.training.cpu_copy import cpu_copy
from agentgym.training.critic import TrainedCritic
from agentgym.training.learner_tensors import FOLDER as OPTIMIZER_FOLDER
from agentgym.training.metrics import coefficient_metrics, gradient_norms, token_coefficients
from agentgym.training.minibatches import evenly_spaced, loss_scale, minibatches, row_weight
from agentgym.training.networks import Networks
from agentgym.training.ranks import Alone, Ranks

MEMORY_ADVICE = (
    "lower `--optimizer.microbatch-tokens`, or `--rollout.max-context-tokens` if a single episode "
    "is as long; `--optimizer.gradient-checkpointing` and `--lora.rank` also need less memory"
)
NORM_TOKENS = 2048
"""Tokens of the rows on which gradient norms of the parts of a loss are measured."""

LOG_RATIO = 20.0
"""Bound of log-ratios in metrics: their exponential would overflow for tokens without weight."""


class NotFinite(TrainingError):
    """A loss or a gradient is NaN or infinite; the optimizer step was not taken.

    Args:
        name: Name of the metric.
        value: Its value.
        batch: The minibatch, with all its columns.
        update: Name of the update.
        step: Training step.
    """

    def __init__(self, name: str, value: float, batch: Batch, update: str, step: int) -> None:
        super().__init__(
            f"{name} of update {update!r} at step {step} is {value}: the step was not taken"
        )
        self.batch = batch
        self.update = update
        self.step = step


class Learner:
    """A policy and its optimizer, with the critic and the reference that some algorithms need.

    Trained weights and the optimizer's state are float32 on every device; see
    ``agentgym.models.precision``.

    Args:
        policy: The policy that is trained.
        settings: Learning rate and the other settings of the optimizer.
        seed: Seed of the order of minibatches.
        horizon: Number of training steps, towards which the learning rate decays; None: it stays.
        ranks: The processes that compute the updates; unset: this one.

    Raises:
        ConfigError: Gradient checkpointing is set and the architecture does not support it.
    """

    def __init__(
        self,
        policy: Policy,
        settings: OptimizerSettings | None = None,
        *,
        seed: int = 0,
        horizon: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.policy = policy
        self.ranks: Ranks = ranks or Alone()
        self.settings = settings or OptimizerSettings()
        self.horizon = horizon
        self.dtype = compute_dtype(self.settings.precision, policy.model)
        """Kind of number of the computation."""
        keep_trained_weights_in_float32(policy.model)
        if self.settings.gradient_checkpointing:
            policy.enable_gradient_checkpointing()
        self.optimizer = self._make_optimizer()
        self.generator = torch.Generator().manual_seed(seed)
        self.steps_taken = 0
        """Optimizer steps taken."""
        self.critic: TrainedCritic | None = None
        self.reference: Policy | None = None
        self.reductions: tuple[Reduction, ...] = ()
        """Reductions over the vocabulary that credit reads."""

    def _make_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            [p for p in self.policy.model.parameters() if p.requires_grad],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            betas=(0.9, 0.95),
        )

    def attach(self, algorithm: Algorithm) -> None:
        """Add the critic and the reference that an algorithm needs, as copies of the policy.

        Raises:
            TrainingError: It has one already: a learner serves one algorithm.
        """
        if self.critic is not None or self.reference is not None:
            raise TrainingError("this learner serves another algorithm: make a new `Learner`")
        self.reductions = algorithm.credit.reductions
        if algorithm.critic is not None:
            self.add_critic(algorithm.critic)
        if algorithm.reference:
            frozen = trainable_copy(self.policy.model).requires_grad_(False)
            self.reference = Policy(frozen, temperature=self.policy.temperature)

    def add_critic(self, plan: CriticPlan) -> None:
        """Add a critic, as a copy of the policy."""
        self.critic = TrainedCritic(Critic(self.policy), plan)

    def observe(self, batch: Batch) -> Batch:
        """The batch with the networks' outputs for its tokens, before any update."""
        outputs = self._evaluate(batch, self.reductions)
        extra = dict(outputs.extra)
        if outputs.value is not None:
            extra[VALUE] = outputs.value
        if self.reference is not None:
            extra[REFERENCE] = self._evaluate(batch, policy=self.reference).logprob
        return batch.with_(logprob=outputs.logprob, entropy=outputs.entropy, **extra)

    @contextmanager
    def _on_device(self, batch: Batch) -> Iterator[Batch]:
        """A micro-batch on the network's device."""
        with explain_out_of_memory(f"a pass of {len(batch.tokens)} tokens", MEMORY_ADVICE):
            yield batch.to(self.policy.device)

    def _passes(self, batch: Batch) -> Iterator[tuple[Batch, Tensor | None]]:
        """Micro-batches of this rank with their positions in the batch.

        Without positions, one is computed only because other ranks compute theirs.
        """
        if not len(batch):
            return
        wanted = self.ranks.microbatches(
            batch, self.settings.microbatch_tokens, shared=self.policy.shares_prefixes
        )
        for index in wanted:
            rows = torch.zeros(1, dtype=torch.long) if index is None else index
            yield batch.rows(rows), None if index is None else batch.places(index)

    def _evaluate(
        self, batch: Batch, reductions: Sequence[Reduction] = (), *, policy: Policy | None = None
    ) -> Outputs:
        """Outputs of the networks for all rows, without a gradient, on the CPU."""
        names = ["logprob", "entropy", *(reduction.name for reduction in reductions)]
        names += ["value"] if policy is None and self.critic is not None else []
        columns = torch.zeros(len(names), len(batch.tokens))
        asked = torch.unique(batch.row[batch.mask])
        places = batch.places(asked)
        with torch.no_grad():
            for rows, at in self._passes(batch.rows(asked)):
                with self._on_device(rows) as part:
                    outputs = self._outputs(part, reductions, policy=policy)
                    if at is not None:
                        columns[:, places[at]] = torch.stack(outputs.columns()).cpu()
        found = dict(zip(names, self.ranks.total(columns), strict=True))
        return Outputs(found.pop("logprob"), found.pop("entropy"), found.pop("value", None), found)

    def _outputs(
        self, batch: Batch, reductions: Sequence[Reduction] = (), *, policy: Policy | None = None
    ) -> Outputs:
        low = self.dtype == torch.bfloat16
        with torch.autocast(self.policy.device.type, torch.bfloat16, enabled=low):
            outputs = (policy or self.policy)(batch, reductions)
            if self.critic is None or policy is not None:
                return outputs
            return outputs._replace(value=self.critic.network(batch))

    def update(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Take the optimizer steps of one update; returns their mean metrics.

        Takes no step where no selected row has weight.

        Raises:
            NotFinite: A loss or a gradient is NaN or infinite.
        """
        weights = torch.stack([batch.column(term.weight) for term in update.loss.terms()]).sum(0)
        rows = update.rows(batch) & (row_weight(batch, weights) > 0)
        if not rows.any():
            return {}
        sums: dict[str, float] = {}
        count = 0
        norms: dict[str, float] = {}
        for epoch in range(update.epochs):
            shares = list(minibatches(batch, rows, update.minibatches, self.generator))
            for index in shares:
                with explain_out_of_memory("an optimizer step", MEMORY_ADVICE):
                    part = self.prepare(batch.rows(index), update)
                    if epoch == update.epochs - 1 and index is shares[-1]:
                        norms = self._part_norms(part, update, step)
                    metrics = self._step(part, update, step)
                count += 1
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
        means = norms | {name: value / count for name, value in sums.items()}
        return {f"{update.name}/{name}": value for name, value in means.items()}

    def _part_norms(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Gradient norm of each part of a loss of several parts, on a sample of the rows.

        Measured before the last optimizer step of an update: before the first, where every ratio
        is 1, a penalty on moving away has no gradient yet. The sample is evenly spaced and has
        about ``NORM_TOKENS`` tokens, at least one row.
        """
        if len(list(update.loss.apart())) < 2:
            return {}
        part = batch.rows(evenly_spaced(batch, NORM_TOKENS)).to(self.policy.device)
        outputs = self._outputs(part, update.loss.asks())
        parameters = [p for p in self.policy.model.parameters() if p.requires_grad]
        norms = gradient_norms(update.loss, outputs, part, step, parameters)
        return {f"norm/{name}": value for name, value in norms.items()}

    def prepare(self, batch: Batch, update: Update) -> Batch:
        """A minibatch with the columns that depend on the current policy."""
        if update.select is None:
            return batch
        return update.select.apply(self._evaluate(batch, update.loss.asks()), batch, self.generator)

    def gradient(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Accumulate the gradient of the weighted loss; micro-batches do not change it."""
        divisors = [(term, term.divisor(batch, term.weight)) for term in update.loss.terms()]
        terms = [(term, divisor) for term, divisor in divisors if divisor > 0]
        names = ("loss", "kl", "clipped")
        sums = torch.zeros(len(names), dtype=torch.float64)
        coefficients = torch.zeros(2, len(batch.tokens))
        for rows, at in self._passes(batch):
            with self._on_device(rows) as part:
                outputs = self._outputs(part, update.loss.asks())
                losses = []
                for term, divisor in terms:
                    weight = part.column(term.weight) / divisor.to(part.weight.device)
                    losses.append((term.apply(outputs, part, step) * weight).sum())
                loss = sum(losses[1:], start=losses[0])
                if at is None:
                    (loss * 0.0).backward()  # type: ignore[no-untyped-call]
                    continue
                coefficients[:, at] = token_coefficients(update.loss, outputs, part, step).cpu()
                loss.backward()  # type: ignore[no-untyped-call]
                weight = part.weight / batch.weight.sum().clamp(min=1e-12).to(part.weight.device)
                shift = _policy_shift(outputs, part)
                moved = (float((shift[name] * weight).sum()) for name in names[1:])
                sums += torch.tensor([loss.item(), *moved], dtype=torch.float64)
        total = dict(zip(names, self.ranks.total(sums).tolist(), strict=True))
        found = self.ranks.total(coefficients)
        return total | coefficient_metrics(found, update.loss, batch)

    def _step(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        self._zero_grad()
        metrics = self.gradient(batch, update, step) | self._clip(loss_scale(update.loss, batch))
        for name in ("loss", *(name for name in metrics if name.endswith("grad_norm"))):
            if not math.isfinite(metrics[name]):
                raise NotFinite(name, metrics[name], batch, update.name, step)
        self.steps_taken += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.step()
        if self.critic is not None:
            self.critic.optimizer.step()
        return metrics

    def _clip(self, scale: float) -> dict[str, float]:
        """Clip the gradients to the largest norm; returns their norms before that.

        Args:
            scale: Of the loss, relative to a mean over tokens; the norm is in units of it.
        """
        norms = {"grad_norm": self._norm(self.policy.model, self.settings.max_grad_norm * scale)}
        if self.critic is not None:
            plan, model = self.critic.plan, self.critic.network.model
            norms["critic_grad_norm"] = self._norm(model, plan.max_grad_norm)
        return norms

    def _norm(self, model: nn.Module, largest: float) -> float:
        """Clip the gradient of a network; returns its norm before that."""
        return float(torch.nn.utils.clip_grad_norm_(model.parameters(), largest))

    def _zero_grad(self) -> None:
        self.optimizer.zero_grad()
        if self.critic is not None:
            self.critic.optimizer.zero_grad()

    def _rate(self, step: int) -> float:
        """Learning rate of the next optimizer step, in a training step counted from 0."""
        warmup = min(1.0, self.steps_taken / max(1, self.settings.warmup_steps))
        progress = step / self.horizon if self.horizon else 0.0
        decay = 1 - (1 - self.settings.final_lr_ratio) * progress
        return self.settings.learning_rate * warmup * decay

    def weights(self, *, adapters: bool = False) -> dict[str, Tensor]:
        """Weights for an engine: all, with adapters merged, or the adapters alone."""
        return self.policy.weights(adapters=adapters)

    def whole_model(self) -> CausalLM:
        """The policy's network, to be saved."""
        model: CausalLM = self.policy.model
        return model

    def critic_weights(self) -> dict[str, Tensor] | None:
        """All weights of the critic; None without one."""
        return None if self.critic is None else self.critic.network.model.state_dict()

    def close(self) -> None:
        """Nothing else takes part."""

    def saving(self, folder: Path, *, state: bool, copies: bool) -> Callable[[], None]:
        """What writes the policy into a Hugging Face folder, as it is now.

        Args:
            folder: The folder.
            state: The training goes on from it: write also what ``state`` leaves out.
            copies: Copy to CPU memory now, so that training may go on before it is called.
        """
        model = self.policy.model
        weights = cpu_copy(saved_weights(model)) if copies else None
        return lambda: model.save_pretrained(folder, state_dict=weights)

    @property
    def networks(self) -> Networks:
        """The networks with their optimizers."""
        return Networks(self.policy.model, self.optimizer, self.critic, self.reference)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs besides the weights."""
        counters = {"generator": self.generator.get_state(), "steps_taken": self.steps_taken}
        return self.networks.state() | counters

    def restore(self, state: dict[str, Any], checkpoint: Path | None = None) -> None:
        """Continue from ``state``, of one process or of several ranks.

        Args:
            state: As ``state`` gave it.
            checkpoint: The folder that ranks wrote the rest into.
        """
        self.generator.set_state(state["generator"])
        self.steps_taken = state["steps_taken"]
        if "optimizer" in state:
            self._load(state)
        else:
            assert checkpoint is not None, "ranks leave tensors out of their state"
            self._read(checkpoint / OPTIMIZER_FOLDER, state["tensors"])

    def _load(self, state: dict[str, Any]) -> None:
        self.networks.load(state)

    def _read(self, folder: Path, count: int) -> None:
        self.networks.tensors().read(folder, count)


def _policy_shift(outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Shift of the policy since before the update, per token.

    ``kl`` is the k3 estimate of KL(before || now) in nats (Schulman 2020, "Approximating KL
    divergence"): exp(d) - 1 - d with d = log now - log before, never negative.
    """
    move = (outputs.logprob - batch.logprob).detach().clamp(-LOG_RATIO, LOG_RATIO)
    inside = batch.mask & (batch.logprob != 0)
    kl = (move.exp() - 1 - move) * inside
    return {"kl": kl, "clipped": ((move.exp() - 1).abs() > 0.2) & inside}
