"""Runs parts of a model call in parallel, each on one CPU core.

Threads that share every operation synchronise after each one and read results from another core's
cache. A thread with its own rows does neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import numpy as np

# By name: vLLM puts a function that does nothing in the place of `torch.set_num_threads`.
from torch import get_num_threads, set_num_threads

Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")
CHUNK_TOKENS = 512
"""Approximate limit on the tokens of a part, so that activations stay in the CPU cache."""


def packing_order(rows: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Indices of rows, sorted so that rows of one attention call are adjacent.

    Rows with one new token first, then prefills; each in the order of slots.
    """
    return sorted(range(len(rows)), key=lambda i: (counts[i] > 1, rows[i]))


def split_rows(rows: Sequence[int], counts: Sequence[int], cores: int) -> list[np.ndarray]:
    """Split the rows of a call among cores; empty if some cores would idle.

    Args:
        rows: Slots.
        counts: New tokens of each row.
        cores: Number of cores.

    Returns:
        Arrays of indices into ``rows``, each index in exactly one of them, with about the same
        number of tokens per core.
    """
    total = sum(counts)
    if cores == 1 or total < cores * max(CHUNK_TOKENS, *counts):
        return []
    order = np.array(packing_order(rows, counts))
    size = total / (cores * -(-total // (cores * CHUNK_TOKENS)))
    piece = (np.cumsum(np.array(counts)[order]) - 1) // size
    return np.split(order, np.flatnonzero(np.diff(piece)) + 1)


def run_parallel(
    compute: Callable[[Piece], Outcome], pieces: Iterable[Piece], cores: int
) -> list[Outcome]:
    """Apply ``compute`` to every part, one per core at a time; results in order.

    Returns, or raises the exception of a part, only after all parts have ended.
    """
    threads = _threads(cores)
    running = [threads.submit(compute, piece) for piece in pieces]
    wait(running)
    return [outcome.result() for outcome in running]


@cache
def _threads(cores: int) -> ThreadPoolExecutor:
    """Threads in which a PyTorch operation uses one core."""
    ready = Barrier(cores + 1)

    def initialise() -> None:
        set_num_threads(1)
        # Query it once: a thread's first query returns the number of the process.
        get_num_threads()
        ready.wait()

    before = get_num_threads()
    threads = ThreadPoolExecutor(cores, "agentgym-core", initializer=initialise)
    for _ in range(cores):
        threads.submit(int)
    ready.wait()
    # The number of the process is what any thread set last: restore it.
    set_num_threads(before)
    return threads
