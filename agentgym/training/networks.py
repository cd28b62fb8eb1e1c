"""What a learner holds: its networks and their optimizers, and their state on disk."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from agentgym.models.lora import unshared_weights
from agentgym.models.policy import Policy
from agentgym.training.critic import TrainedCritic
from agentgym.training.learner_tensors import LearnerTensors, Trained


class Networks(NamedTuple):
    """The policy and its optimizer, with the critic and the reference that some algorithms need."""

    policy: Any
    optimizer: torch.optim.Optimizer
    critic: TrainedCritic | None
    reference: Policy | None

    def state(self) -> dict[str, Any]:
        """All that changes in training but the policy's weights, and the reference."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.critic is not None:
            state["critic"] = unshared_weights(self.critic.network.model, self.policy)
            state["critic_optimizer"] = self.critic.optimizer.state_dict()
        if self.reference is not None:
            state["reference"] = unshared_weights(self.reference.model, self.policy)
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Load what ``state`` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.critic is not None:
            self.critic.network.model.load_state_dict(state["critic"], strict=False)
            self.critic.optimizer.load_state_dict(state["critic_optimizer"])
        if self.reference is not None:
            self.reference.model.load_state_dict(state["reference"], strict=False)

    def tensors(self) -> LearnerTensors:
        """The same, tensor by tensor."""
        trained = Trained.of(self.policy, self.optimizer)
        found = LearnerTensors({"optimizer": trained})
        if self.critic is not None:
            critic = Trained.of(self.critic.network.model, self.critic.optimizer)
            found.optimizers["critic_optimizer"] = critic
            found.weights["critic"] = critic.weights
        if self.reference is not None:
            named = self.reference.model.named_parameters()
            found.weights["reference"] = {n: p for n, p in named if n in trained.weights}
        return found
