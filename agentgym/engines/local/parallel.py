"""Pieces of a model call side by side, each on one core of a CPU.

Threads that share every operation wait for each other after each, and fetch from one core's cache
what another has computed. A thread that has a piece of its own does neither.
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
PIECE = 512
"""New tokens of a piece, at most about: what a layer makes of them stays in the cache."""


def order_of(rows: Sequence[int], counts: Sequence[int]) -> list[int]:
    """Places of rows so that those which share an attention call lie together.

    Those with one new token first; each kind in the order of slots.
    """
    return sorted(range(len(rows)), key=lambda i: (counts[i] > 1, rows[i]))


def pieces_of(rows: Sequence[int], counts: Sequence[int], cores: int) -> list[np.ndarray]:
    """Rows of a call shared out among cores, neighbours together; none if some would idle.

    Args:
        rows: Slots.
        counts: New tokens of each.
        cores: How many.

    Returns:
        Places in ``rows``, each of them in one piece; about as many tokens for every core.
    """
    total = sum(counts)
    if cores == 1 or total < cores * max(PIECE, *counts):
        return []
    order = np.array(order_of(rows, counts))
    size = total / (cores * -(-total // (cores * PIECE)))
    piece = (np.cumsum(np.array(counts)[order]) - 1) // size
    return np.split(order, np.flatnonzero(np.diff(piece)) + 1)


def side_by_side(
    compute: Callable[[Piece], Outcome], pieces: Iterable[Piece], cores: int
) -> list[Outcome]:
    """What comes of each piece, as many at a time as there are cores.

    Returns, or raises what one of them raised, when none is being computed any more.
    """
    threads = _threads(cores)
    running = [threads.submit(compute, piece) for piece in pieces]
    wait(running)
    return [outcome.result() for outcome in running]


@cache
def _threads(cores: int) -> ThreadPoolExecutor:
    """Threads in which an operation of PyTorch takes one core."""
    ready = Barrier(cores + 1)

    def begin() -> None:
        set_num_threads(1)
        # Asked for now, since a thread that has not asked yet is told the process's number.
        get_num_threads()
        ready.wait()

    before = get_num_threads()
    threads = ThreadPoolExecutor(cores, "agentgym-core", initializer=begin)
    for _ in range(cores):
        threads.submit(int)
    ready.wait()
    # The process's number, which other threads will be told, is what any thread set last.
    set_num_threads(before)
    return threads
