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
    except (torch.OutOfMemoryError, MemoryError) as problem:
        raise OutOfMemory(f"there is not enough memory for {what}: {remedy}") from problem
    except RuntimeError as problem:
        # Of a CPU's, PyTorch has no class.
        if "can't allocate memory" not in str(problem):
            raise
        raise OutOfMemory(f"there is not enough memory for {what}: {remedy}") from problem
