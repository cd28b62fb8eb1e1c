"""A critic under training: a value network with an optimizer of its own."""

from __future__ import annotations

import torch

from agentgym.algorithm import CriticPlan
from agentgym.models.policy import Critic
from agentgym.models.precision import keep_trained_weights_in_float32


class TrainedCritic:
    """A critic and its optimizer."""

    def __init__(self, network: Critic, plan: CriticPlan) -> None:
        self.network = network
        self.plan = plan
        keep_trained_weights_in_float32(network.network.model)
        self.optimizer = self.make_optimizer()

    def make_optimizer(self) -> torch.optim.AdamW:
        """A fresh optimizer of the network's trained weights."""
        return torch.optim.AdamW(
            [p for p in self.network.model.parameters() if p.requires_grad],
            lr=self.plan.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.95),
        )
