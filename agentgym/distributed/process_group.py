"""The processes that torchrun started: their collectives, and how they divide micro-batches."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from agentgym.batch.batch import Batch
from agentgym.batch.prefix_tree import beginnings, split
from agentgym.training.minibatches import microbatches

WAIT = timedelta(days=7)
"""Longest wait for the next command: rank 0 plays whole evaluations in between."""


def launched() -> bool:
    """Whether torchrun, or another launcher of its kind, started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@dataclass(frozen=True)
class ProcessGroup:
    """The ranks of a training job, as one of them sees it."""

    rank: int
    size: int
    mesh: DeviceMesh
    control: Any
    """Process group of the commands, on the CPU."""
    files: Any
    """Process group of checkpoints, on the CPU, which are written while commands are sent."""

    @property
    def lead(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def broadcast(self, value: Any = None) -> Any:
        """Rank 0's value, on every rank; what the others give does not matter."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def raise_of_any(self, problem: Exception | None) -> None:
        """Raise on every rank what went wrong with the files of any; all ranks call it.

        Raises:
            OSError: Some rank had a problem; the first one, as text.
        """
        found: list[str | None] = [None] * self.size
        text = problem and (str(problem) if isinstance(problem, OSError) else repr(problem))
        dist.all_gather_object(found, text, group=self.files)
        for rank, text in enumerate(found):
            if text is not None:
                raise OSError(f"rank {rank}: {text}")

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks, of a tensor on the CPU."""
        summed = values.clone()
        dist.all_reduce(summed, group=self.control)
        return summed

    def microbatches(
        self, batch: Batch, tokens: int, *, shared: bool
    ) -> Iterator[Int[Tensor, " M"] | None]:
        """Micro-batches of this rank, as many on every rank; None is one that counts for nothing.

        FSDP gathers each layer on all ranks at once, so the ranks compute in step. Micro-batches of
        about the same cost are computed at the same time.
        """
        runs = even_microbatches(batch, tokens, self.size, shared=shared)
        for step in deal(costs(batch, runs, shared=shared), self.size):
            place = step[self.rank]
            yield None if place is None else runs[place]


_current: list[ProcessGroup] = []


def join() -> ProcessGroup | None:
    """Join the processes that torchrun started; None where this process is alone.

    Gloo connects CPUs, NCCL connects GPUs; each process takes the GPU of its local rank.
    """
    if not launched():
        return None
    if not _current:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        size = dist.get_world_size()
        mesh = init_device_mesh("cuda" if cuda else "cpu", (size,))
        control, files = (dist.new_group(backend="gloo", timeout=WAIT) for _ in range(2))
        atexit.register(_leave)
        _current.append(ProcessGroup(dist.get_rank(), size, mesh, control, files))
    return _current[0]


def _leave() -> None:
    _current.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def current() -> ProcessGroup | None:
    """The processes that this one has joined; None where it is alone."""
    return _current[0] if _current else None


def even_microbatches(
    batch: Batch, tokens: int, ranks: int, *, shared: bool
) -> list[Int[Tensor, " M"]]:
    """Micro-batches of at most ``tokens`` tokens whose number is a multiple of the ranks.

    They are made smaller until the last step of the ranks is full, where there are rows enough.
    """
    runs = list(microbatches(batch, tokens, shared=shared))
    wanted = -(-len(runs) // ranks) * ranks
    size = tokens
    while len(runs) < wanted and size > 1:
        size = size * 9 // 10
        smaller = list(microbatches(batch, size, shared=shared))
        if len(smaller) > wanted:
            break
        runs = smaller
    return runs


def deal(cost: Sequence[float], ranks: int) -> list[list[int | None]]:
    """Per step of the ranks, which item each takes; neighbours in cost share a step."""
    order = sorted(range(len(cost)), key=lambda place: -cost[place])
    steps: list[list[int | None]] = [
        list(order[at : at + ranks]) for at in range(0, len(order), ranks)
    ]
    return [step + [None] * (ranks - len(step)) for step in steps]


def costs(batch: Batch, runs: Sequence[Int[Tensor, " M"]], *, shared: bool) -> list[int]:
    """Tokens that each micro-batch computes."""
    return [_cost(batch, run, shared=shared) for run in runs]


def _cost(batch: Batch, run: Int[Tensor, " M"], *, shared: bool) -> int:
    """Tokens that a micro-batch computes."""
    part = batch.rows(run)
    rows = split(part.tokens, part.lengths)
    if not shared:
        return sum(len(row) for row in rows)
    return sum(len(rows[index]) - prefix for index, prefix in beginnings(rows))
