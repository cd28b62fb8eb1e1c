"""Rank 0's learner: all ranks carry out its calls, and the loop in which the others do.

No code is sent: a command is the name of a method of the learner with plain arguments. Batches and
states are sent by pickle, between the processes of one job, which trust each other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from agentgym.algorithm import Algorithm, Update
from agentgym.batch.batch import Batch
from agentgym.distributed.learner import ShardedLearner
from agentgym.distributed.process_group import ProcessGroup
from agentgym.errors import ConfigError
from agentgym.models.policy import Policy
from agentgym.models.protocols import CausalLM
from agentgym.training.learner import NotFinite

END = "end"
"""The command after which a rank has no learner any more."""


class LeadLearner(ShardedLearner):
    """The learner of rank 0: each call is first sent to the other ranks.

    It keeps a whole copy of the network on the CPU, for checkpoints and for the engine.
    """

    def attach(self, algorithm: Algorithm) -> None:
        """Attach the algorithm on this rank; the others attach it when they make their learner."""
        self._copy = Policy(
            copy.deepcopy(self.policy.model).cpu(), temperature=self.policy.temperature
        )
        # Steps run in a thread of their own, checkpoints are written in another.
        self._lock = Lock()
        self._updates = algorithm.updates
        super().attach(algorithm)

    def observe(self, batch: Batch) -> Batch:
        """The batch with the networks' outputs for its tokens."""
        with self._lock:
            self._send("observe", batch)
            return super().observe(batch)

    def update(self, batch: Batch, update: Update, step: int) -> dict[str, float]:
        """Take the optimizer steps of one update of the attached algorithm."""
        with self._lock:
            self._send("update", batch, self._updates.index(update), step)
            return super().update(batch, update, step)

    def weights(self, *, adapters: bool = False) -> dict[str, Tensor]:
        """Whole weights for an engine: all, with adapters merged, or the adapters alone."""
        self.whole_model()
        return self._copy.weights(adapters=adapters)

    def whole_model(self) -> CausalLM:
        """The policy's network with all its current weights, on the CPU."""
        with self._lock:
            self._send("gather_into", None)
            self.gather_into(self._copy.model)
        found: CausalLM = self._copy.model
        return found

    def critic_weights(self) -> dict[str, Tensor] | None:
        """Whole weights of the critic; None without one."""
        with self._lock:
            self._send("critic_weights")
            return super().critic_weights()

    def saving(self, folder: Path, *, state: bool, copies: bool) -> Callable[[], None]:
        """What writes a checkpoint; the other ranks write their parts meanwhile."""
        with self._lock:
            self._send("save", folder, state, copies)
            return super().saving(folder, state=state, copies=copies)

    def restore(self, state: dict[str, Any], checkpoint: Path | None = None) -> None:
        """Continue from ``state``."""
        with self._lock:
            self._send("restore", state, checkpoint)
            super().restore(state, checkpoint)

    def close(self) -> None:
        """Let the other ranks go."""
        with self._lock:
            self._send(END)

    def _send(self, name: str, *arguments: Any) -> None:
        self.group.broadcast((name, arguments))


def carry_out_commands(
    learner: ShardedLearner, updates: Sequence[Update], ranks: ProcessGroup
) -> None:
    """Run the calls of rank 0, until it ends.

    Args:
        learner: This rank's; made and attached like rank 0's.
        updates: Of the algorithm.
        ranks: The ranks.
    """
    with ThreadPoolExecutor(1, "checkpoint") as writer:
        while True:
            name, arguments = ranks.broadcast()
            if name == END:
                return
            if name == "save":
                folder, state, copies = arguments
                write = learner.saving(folder, state=state, copies=copies)
                # What goes wrong with the files of one rank is raised on all; rank 0 reports it.
                writing = writer.submit(write)
                wait([] if copies else [writing])
                continue
            if name == "update":
                batch, number, step = arguments
                arguments = batch, updates[number], step
            # All ranks find the same numbers and files, so rank 0 reports it.
            with suppress(NotFinite, ConfigError):
                getattr(learner, name)(*arguments)
