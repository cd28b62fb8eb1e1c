"""The tensors that training changes besides the policy's weights, by name, and their files.

``torch.distributed.checkpoint`` writes and reads them: each rank writes its own shares, into
safetensors files, which any number of ranks can read, and one process too. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agentgym.errors import ConfigError

FOLDER = "optimizer"
"""Folder of the files within a checkpoint."""


class Trained(NamedTuple):
    """An optimizer and the weights that it changes, by name."""

    weights: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, model: nn.Module, optimizer: torch.optim.Optimizer) -> Trained:
        """The weights of a network that require gradients, with their optimizer."""
        return cls({n: p for n, p in model.named_parameters() if p.requires_grad}, optimizer)


@dataclass(frozen=True)
class LearnerTensors:
    """Weights and moments of a learner, live: reading files changes them.

    They are divided among the ranks where the learner's networks are.
    """

    optimizers: dict[str, Trained]
    weights: dict[str, dict[str, nn.Parameter]] = field(default_factory=dict)
    """Weights of further networks, by the network's name and their own."""

    def named(self) -> dict[str, Tensor]:
        """All of them; moments exist from an optimizer's first step on."""
        return dict(self._named())

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for network, weights in self.weights.items():
            for name, weight in weights.items():
                yield f"{network}/{name}", weight.detach()
        for network, (weights, optimizer) in self.optimizers.items():
            for name, weight in weights.items():
                for moment, value in optimizer.state.get(weight, {}).items():
                    yield f"{network}/{name}/{moment}", value

    def saving(self, folder: Path, group: Any, *, copies: bool) -> Callable[[], None]:
        """What writes the shares of this rank; every rank calls it, in any thread.

        It raises ``OSError`` on every rank where one cannot write.

        Args:
            folder: On a file system that all ranks see.
            group: Process group of the ranks, on the CPU.
            copies: Copy to CPU memory now, so that training may go on before it is called.
        """
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        tensors = _staged(self.named()) if copies else self.named()

        def write() -> None:
            if not tensors:
                return
            writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
            try:
                save(tensors, storage_writer=writer, process_group=group)
            except CheckpointException as problem:
                rank, (reason, _) = next(iter(problem.failures.items()))
                raise OSError(f"rank {rank}: {reason}") from problem

        return write

    def read(self, folder: Path, count: int, group: Any = None) -> None:
        """Read what ranks have written, as many as there were.

        Args:
            folder: Where it is.
            count: Number of tensors that were written.
            group: Process group of the ranks that read it together; unset: this process alone.

        Raises:
            ConfigError: Files are missing, or of another model.
        """
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        reader = HuggingFaceStorageReader(str(folder))
        saved = _shapes(reader) if folder.is_dir() else {}
        if len(saved) != count:
            raise ConfigError(
                f"{folder} is not complete: {len(saved)} of {count} tensors are there"
            )
        self._make_moments(saved)
        tensors = self.named()
        for name in sorted(tensors.keys() | saved.keys()):
            expected = tuple(tensors[name].shape) if name in tensors else None
            if saved.get(name) != expected:
                raise ConfigError(
                    f"{folder} does not fit the model or is not complete: {name} has shape "
                    f"{saved.get(name)}, expected {expected}"
                )
        with warnings.catch_warnings():
            # That this process is alone is meant.
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)

    def _make_moments(self, saved: dict[str, tuple[int, ...] | None]) -> None:
        """Make the moments that were saved, and no others, to be read into."""
        for network, (weights, optimizer) in self.optimizers.items():
            optimizer.state.clear()
            for key, shape in saved.items():
                owner, _, rest = key.partition("/")
                name, _, moment = rest.partition("/")
                if owner == network and moment and name in weights:
                    # Counters of steps have no dimension.
                    like = torch.zeros_like(weights[name]) if shape != () else torch.tensor(0.0)
                    optimizer.state[weights[name]][moment] = like.detach()


def _shapes(reader: Any) -> dict[str, tuple[int, ...] | None]:
    """Shape of each saved tensor; None for one of which a file is missing."""
    found: dict[str, tuple[int, ...] | None] = {}
    for name, each in reader.read_metadata().state_dict_metadata.items():
        covered = sum(prod(chunk.sizes) for chunk in each.chunks)
        found[name] = tuple(each.size) if covered == prod(each.size) else None
    return found


def _staged(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Copies in CPU memory, divided as the tensors are."""
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    plain = StagingOptions(
        use_pinned_memory=False,
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=False,
    )
    found: dict[str, Any] = DefaultStager(plain).stage(tensors)  # type: ignore[assignment]
    return found
