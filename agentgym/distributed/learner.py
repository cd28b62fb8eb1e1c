"""The learner of one rank: it holds the whole batch and a share of every network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agentgym.algorithm import Algorithm, Update
from agentgym.batch.batch import Batch
from agentgym.distributed import sharding, weight_files
from agentgym.distributed.process_group import ProcessGroup
from agentgym.training.learner import NORM_TOKENS, Learner
from agentgym.training.learner_tensors import FOLDER, LearnerTensors
from agentgym.training.minibatches import evenly_spaced


class ShardedLearner(Learner):
    """A learner whose networks are divided among the ranks once the algorithm is attached.

    Every rank makes the same calls with the same arguments. Results are those of one process up to
    rounding: gradients, metrics, selections, optimizer steps.

    The ``ranks`` that it is made with are a ``ProcessGroup``; the policy is whole at first, on this
    rank's device.
    """

    @property
    def group(self) -> ProcessGroup:
        """The ranks."""
        assert isinstance(self.ranks, ProcessGroup)
        return self.ranks

    def attach(self, algorithm: Algorithm) -> None:
        """Add the critic and the reference that an algorithm needs, then divide all networks."""
        super().attach(algorithm)
        networks = [self.policy]
        networks += [self.critic.network.network] if self.critic is not None else []
        networks += [self.reference] if self.reference is not None else []
        for network in networks:
            sharding.shard(network, self.group.mesh, cpu_offload=self.settings.cpu_offload)
        # Optimizers made before hold the whole weights.
        self.optimizer = self._make_optimizer()
        if self.critic is not None:
            self.critic.optimizer = self.critic.make_optimizer()

    def _norm(self, model: nn.Module, largest: float) -> float:
        # The norm of shares is itself a share: what clips is right, what is logged needs the sum.
        found = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
        return float(sharding.whole(found))

    def _part_norms(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """As in one process, with a pass for every part: FSDP sums gradients in whole passes."""
        if len(list(update.loss.apart())) < 2:
            return {}
        sample = batch.rows(evenly_spaced(batch, NORM_TOKENS))
        norms = {}
        for name in dict.fromkeys(part.name for part in update.loss.apart()):
            self._zero_grad()
            for place, at in self._passes(sample):
                rows = place.to(self.policy.device)
                outputs = self._outputs(rows, update.loss.asks())
                # Every rank takes a backward pass, also where the part has no gradient.
                total = sum((0.0 * column.sum() for column in outputs.columns()), torch.zeros(()))
                for part in update.loss.apart():
                    if part.name != name or at is None:
                        continue
                    divisor = part.divisor(sample, part.weight).clamp(min=1e-12)
                    value = part.apply(outputs, rows, step) * rows.column(part.weight)
                    total = total + (value / divisor.to(value.device)).sum()
                total.backward()  # type: ignore[no-untyped-call]
            norms[f"norm/{name}"] = sharding.norm(self.policy.model.parameters())
        self._zero_grad()
        return norms

    def critic_weights(self) -> dict[str, Tensor] | None:
        """All weights of the critic, whole; None without one."""
        if self.critic is None:
            return None
        return {n: sharding.whole(w) for n, w in self.critic.network.model.state_dict().items()}

    def gather_into(self, copy: nn.Module | None) -> None:
        """Write the policy's trained weights into rank 0's whole copy; every rank takes part."""
        model = self.policy.model
        sharding.gather_into(copy or model, model, lead=copy is not None)

    def saving(self, folder: Path, *, state: bool, copies: bool) -> Callable[[], None]:
        """What writes this rank's part of a checkpoint; every rank takes part in both calls."""
        group, model = self.group, self.policy.model
        weights = weight_files.saving(model, folder, rank=group.rank, ranks=group.size)
        tensors = self.networks.tensors() if state else LearnerTensors({})
        rest = tensors.saving(folder / FOLDER, group.files, copies=copies)

        def write() -> None:
            problem = None
            try:
                weights()
            except Exception as found:
                problem = found
            group.raise_of_any(problem)
            rest()
            if group.lead:
                weight_files.join_parts(folder)

        return write

    def state(self) -> dict[str, Any]:
        """What a resumed run needs besides the weights and the tensors that ``saving`` writes."""
        return {
            "generator": self.generator.get_state(),
            "steps_taken": self.steps_taken,
            "tensors": len(self.networks.tensors().named()),
        }

    def _load(self, state: dict[str, Any]) -> None:
        sharding.load_whole_optimizer_state(self.optimizer, state["optimizer"])
        if self.critic is not None:
            sharding.load_whole_state(self.critic.network.model, state["critic"])
            sharding.load_whole_optimizer_state(self.critic.optimizer, state["critic_optimizer"])
        if self.reference is not None:
            sharding.load_whole_state(self.reference.model, state["reference"])

    def _read(self, folder: Path, count: int) -> None:
        self.networks.tensors().read(folder, count, self.group.files)
