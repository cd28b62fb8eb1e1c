"""A step with a non-finite loss: saved in the run folder, and recomputed from there.

The folder is an ordinary Hugging Face model folder with the weights before the failed step, plus
the minibatch with all its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from agentgym.algorithm import CriticPlan, Update
from agentgym.batch.batch import Batch, pack, unpack
from agentgym.errors import ConfigError, TrainingError
from agentgym.experiment.checkpoints import save_model
from agentgym.experiment.run_folder import RunFolder
from agentgym.models.loading import load_model
from agentgym.models.lora import base_model_of
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM, Tokenizer
from agentgym.settings import OptimizerSettings
from agentgym.training.learner import Learner, NotFinite


class FailedStep(NamedTuple):
    """The saved minibatch and networks."""

    learner: Learner
    batch: Batch
    """The minibatch as the loss saw it, private columns included."""
    update: str
    """Name of the update."""
    step: int
    """Training step, from 0."""


class Recomputed(NamedTuple):
    """Loss and gradient norm of a minibatch."""

    loss: float
    grad_norm: float
    """Gradient norm of the policy before clipping."""


@contextmanager
def keep_failed_step(
    folder: RunFolder, model: Callable[[], CausalLM], tokenizer: Tokenizer, learner: Learner | None
) -> Iterator[None]:
    """Save the minibatch on a non-finite loss or gradient; the run ends there.

    Args:
        folder: The run folder.
        model: Gives the policy's network.
        tokenizer: Saved with the model.
        learner: Its critic, temperature and precision are saved too.

    Raises:
        TrainingError: Instead of ``NotFinite``; its text names the folder.
    """
    try:
        yield
    except NotFinite as problem:
        where = folder.failed(problem.step)
        state = {
            "update": problem.update,
            "step": problem.step,
            "temperature": 1.0 if learner is None else learner.policy.temperature,
            "precision": "auto" if learner is None else learner.settings.precision,
            "columns": pack(problem.batch),
            "private": dict(problem.batch.extra),
            "critic": None if learner is None else learner.critic_weights(),
        }
        save_model(folder, where, model(), tokenizer, state)
        raise TrainingError(
            f"{problem}, and the run ends here. Its batch and weights are in {where}; "
            f"`agentgym.experiment.failed_step.recompute` recomputes it. Lower the learning "
            f"rate, or inspect the advantages"
        ) from problem


def load_failed_step(where: str | Path) -> FailedStep:
    """Load a step that ``keep_failed_step`` saved.

    Args:
        where: Such as RUN/failed-step-0003.

    Raises:
        ConfigError: The folder holds no failed step.
    """
    path = Path(where)
    if not (path / "trainer.pt").is_file():
        raise ConfigError(f"{path} holds no failed step: expected a folder RUN/failed-step-NNNN")
    state: dict[str, Any] = torch.load(path / "trainer.pt", weights_only=True)
    # The weights before the step exactly; the frozen base of adapters is as it was loaded.
    model = load_model(path, dtype=None if base_model_of(path) else torch.float32)
    learner = Learner(
        Policy(model, temperature=state["temperature"]),
        OptimizerSettings(precision=state["precision"]),
    )
    if state["critic"] is not None:
        learner.add_critic(CriticPlan())
        assert learner.critic is not None
        learner.critic.network.model.load_state_dict(state["critic"])
    batch = unpack(state["columns"]).with_(**state["private"])
    return FailedStep(learner, batch, state["update"], state["step"])


def recompute(where: str | Path, updates: Sequence[Update]) -> Recomputed:
    """Recompute the loss and gradient norm of a failed step.

    Args:
        where: Such as RUN/failed-step-0003.
        updates: Those of the algorithm, or ``(agentgym.training.warmup.IMITATION,)``.

    Raises:
        ConfigError: The folder holds no failed step, or none of the updates has its name.
    """
    failed = load_failed_step(where)
    update = next((update for update in updates if update.name == failed.update), None)
    if update is None:
        names = ", ".join(update.name for update in updates)
        raise ConfigError(
            f"{where} is of the update {failed.update!r}, got {names}: build the algorithm that "
            f"config.yaml names"
        )
    failed.learner.optimizer.zero_grad()
    loss = failed.learner.gradient(failed.batch, update, failed.step)["loss"]
    gradients = [p.grad for p in failed.learner.policy.model.parameters() if p.grad is not None]
    return Recomputed(loss, float(torch.nn.utils.get_total_norm(gradients)))
