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
        self.optimizer = torch.optim.AdamW(
            [p for p in network.model.parameters() if p.requires_grad],
            lr=plan.learning_rate,
            weight_decay=0.0,
            betas=(0.9, 0.95),
        )

    def clip(self) -> float:
        """Clip the gradient; returns its norm before that."""
        parameters = self.network.model.parameters()
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.plan.max_grad_norm))
