"""Memory that runs out ends in one line that names what would need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agentgym.errors import OutOfMemory


@contextmanager
def explain_out_of_memory(task: str, advice: str) -> Iterator[None]:
    """Turn the out-of-memory errors of a CPU or a GPU into one with advice; others pass.

    Args:
        task: What needed the memory, such as "an update of 9000 tokens".
        advice: What to change.

    Raises:
        OutOfMemory: Memory ran out.
    """
    try:
        yield
    except OutOfMemory:
        raise  # Keep the inner, more specific error.
    except (MemoryError, RuntimeError) as problem:
        if not _ran_out(problem):
            raise
        raise OutOfMemory(f"there is not enough memory for {task}: {advice}") from problem


def _ran_out(problem: Exception) -> bool:
    # PyTorch has no class for a CPU allocation that failed.
    known = isinstance(problem, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(problem)
