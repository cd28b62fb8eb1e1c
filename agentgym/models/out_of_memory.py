"""A model that does not fit into memory ends in one line that says what would make it smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agentgym.errors import OutOfMemory


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Tell of memory that ran out, on a CPU or a GPU; any other exception passes.

    Args:
        what: What was being done, such as "an update of 9000 tokens".
        remedy: What to do.

    Raises:
        OutOfMemory: Memory ran out.
    """
    try:
        yield
    except OutOfMemory:
        raise  # Whoever was nearer knows better.
    except (MemoryError, RuntimeError) as problem:
        if not _ran_out(problem):
            raise
        raise OutOfMemory(f"there is not enough memory for {what}: {remedy}") from problem


def _ran_out(problem: Exception) -> bool:
    # Of a CPU's, PyTorch has no class.
    known = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(problem)
