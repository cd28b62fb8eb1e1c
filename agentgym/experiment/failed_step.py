"""A step whose loss was no number: kept whole in the run folder, and computed again.

The folder holds the model as it was before the step that was not taken, an ordinary Hugging Face
folder, and beside it the minibatch with all its columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from agentgym.algorithm import CriticPlan, Update
from agentgym.batch.batch import Batch, pack, unpack
from agentgym.errors import ConfigError, TrainingError
from agentgym.experiment.run_folder import RunFolder
from agentgym.models.loading import load_model
from agentgym.models.policy import Policy
from agentgym.training.learner import Learner, NotFinite


class Failure(NamedTuple):
    """What was kept, and the networks it happened in."""

    learner: Learner
    batch: Batch
    """The minibatch as the loss saw it, private columns included."""
    update: str
    """Name of the update."""
    step: int
    """Training step, from 0."""


class Recomputed(NamedTuple):
    """What a minibatch gives."""

    loss: float
    grad_norm: float
    """Of the policy, before any bound."""


@contextmanager
def kept(folder: RunFolder, model: Any, tokenizer: Any, learner: Learner | None) -> Iterator[None]:
    """Keep the minibatch whose loss or gradient is no finite number; the run ends there.

    Args:
        folder: Of the run.
        model: The policy's network.
        tokenizer: To be saved beside it.
        learner: Whose critic is kept too, and its temperature.

    Raises:
        TrainingError: Instead of ``NotFinite``; its text names the folder.
    """
    try:
        yield
    except NotFinite as problem:
        where = folder.failed(problem.step)
        critic = None if learner is None else learner.critic
        state = {
            "update": problem.update,
            "step": problem.step,
            "temperature": 1.0 if learner is None else learner.policy.temperature,
            "columns": pack(problem.batch),
            "private": dict(problem.batch.extra),
            "critic": None if critic is None else critic.network.model.state_dict(),
        }
        folder.save(where, model, tokenizer, state)
        raise TrainingError(
            f"{problem}, and the run ends here. Its batch and weights are in {where}; "
            f"`agentgym.experiment.failed_step.recompute` computes it again. Lower the learning "
            f"rate, or look at the advantages"
        ) from problem


def load_failure(where: str | Path) -> Failure:
    """What ``kept`` left, with its networks.

    Args:
        where: Such as RUN/failed-step-0003.

    Raises:
        ConfigError: There is nothing of the kind.
    """
    path = Path(where)
    if not (path / "trainer.pt").is_file():
        raise ConfigError(f"{path} holds no failed step: expected a folder RUN/failed-step-NNNN")
    state: dict[str, Any] = torch.load(path / "trainer.pt", weights_only=True)
    learner = Learner(Policy(load_model(path), temperature=state["temperature"]))
    if state["critic"] is not None:
        learner.criticise(CriticPlan())
        assert learner.critic is not None
        learner.critic.network.model.load_state_dict(state["critic"])
    batch = unpack(state["columns"]).with_(**state["private"])
    return Failure(learner, batch, state["update"], state["step"])


def recompute(where: str | Path, updates: Sequence[Update]) -> Recomputed:
    """The loss of a failed step and the norm of its gradient, computed again.

    Args:
        where: Such as RUN/failed-step-0003.
        updates: Those of the algorithm, or ``(agentgym.training.warmup.IMITATION,)``.

    Raises:
        ConfigError: The folder holds no failed step, or none of the updates has its name.
    """
    failure = load_failure(where)
    update = next((update for update in updates if update.name == failure.update), None)
    if update is None:
        names = ", ".join(update.name for update in updates)
        raise ConfigError(
            f"{where} is of the update {failure.update!r}, got {names}: build the algorithm that "
            f"config.yaml names"
        )
    failure.learner.optimiser.zero_grad()
    loss = failure.learner.gradient(failure.batch, update, failure.step)["loss"]
    gradients = [p.grad for p in failure.learner.policy.model.parameters() if p.grad is not None]
    return Recomputed(loss, float(torch.nn.utils.get_total_norm(gradients)))
