"""A process group that carries weights from a trainer, rank 0, to engines.

It is not one of the groups of the training ranks: engines come and go, and each set of them has a
group of its own. Weights travel in buckets of bytes, so that both sides need the memory of one
bucket beside the model. Everything here blocks; ``close`` from another thread ends it.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from agentgym.engines.weight_stream import BrokenStream, WeightStream
from agentgym.errors import one_line

BUCKET = 2**28
"""Bytes of a bucket; a larger weight has one of its own."""
ALIGNMENT = 16
"""Each weight begins at a multiple of so many bytes, whatever its type."""
LOOK = 0.0005
"""Seconds between two looks whether a bucket has arrived."""
MEET = 0.02
"""Seconds between two looks whether all processes are there."""
CONNECT = 30.0
"""Seconds in which processes that are all there must connect."""
FREE = 0.1
"""Seconds between two looks whether a group that was left has ended."""
NCCL = {"TORCH_NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}
"""By default the loss of a peer ends the process."""


class Entry(NamedTuple):
    """A weight in a bucket."""

    names: tuple[str, ...]
    """Several for tied weights, which are sent once."""
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Without padding."""
        return math.prod(self.shape) * self.dtype.itemsize


Bucket = tuple[Entry, ...]


def buckets_of(weights: Mapping[str, Tensor], size: int = BUCKET) -> tuple[Bucket, ...]:
    """What is sent together, from names, types and shapes alone."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, weight in weights.items():
        # Empty tensors have no address.
        place = weight.data_ptr() or id(weight)
        kind = weight.dtype, weight.shape, weight.stride()
        names.setdefault((place, *kind), []).append(name)
    buckets: list[list[Entry]] = []
    room = 0
    for (_, dtype, shape, _), tied in names.items():
        entry = Entry(tuple(tied), dtype, tuple(shape))
        if not buckets or entry.nbytes > room:
            buckets.append([])
            room = size
        buckets[-1].append(entry)
        room -= _padded(entry.nbytes)
    return tuple(map(tuple, buckets))


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


class Meeting(NamedTuple):
    """Where the processes of a group meet."""

    host: str
    port: int
    size: int
    backend: str
    """``nccl`` between GPUs, ``gloo`` between CPUs."""
    timeout: float
    """Seconds until the group must be complete, and until all weights must have arrived."""


class WeightGroup:
    """One process's place in a group; rank 0 sends, all others receive the same.

    Args:
        meeting: Of the group.
        rank: Of this process.
        host: Address of this process's machine, under which the others reach it.
        store: Of rank 0, which opened it; the others connect to it.
    """

    def __init__(self, meeting: Meeting, rank: int, host: str, store: Any = None) -> None:
        self._meeting, self._rank, self._host, self._store = meeting, rank, host, store
        self._timeout = meeting.timeout
        self._closed = threading.Event()
        self._work: Any = None
        """The last broadcast."""
        self._device = torch.device("cuda" if meeting.backend == "nccl" else "cpu")
        self._group: Any = None

    def join(self) -> None:
        """Wait until all are there, and connect to them.

        Raises:
            BrokenStream: The others did not come in time.
        """
        meeting = self._meeting
        deadline = time.monotonic() + self._timeout
        with _broken("the group for weights was not complete"):
            if self._store is None:
                self._store = open_store(meeting.host, meeting.port, meeting.timeout)
            self._store.set(_name(self._rank), "")
            # A process cannot leave while it connects, so all must be there before.
            names = [_name(rank) for rank in range(meeting.size)]
            self._until(lambda: self._store.check(names), MEET, deadline)
            make = _nccl if meeting.backend == "nccl" else _gloo
            self._group = make(self._store, self._rank, meeting, self._host)

    def send(self, weights: Mapping[str, Tensor], buckets: Sequence[Bucket]) -> None:
        """Send weights to all others.

        Raises:
            BrokenStream: Not all of them received them in time.
        """
        deadline = time.monotonic() + self._timeout
        for bucket in buckets:
            flat = self._empty(bucket)
            for entry, place in _places(bucket, flat):
                place.copy_(weights[entry.names[0]].detach())
            self._broadcast(flat, deadline)

    def receive(self, buckets: Sequence[Bucket]) -> WeightStream:
        """What rank 0 sends."""
        shapes = {
            name: torch.Size(entry.shape)
            for bucket in buckets
            for entry in bucket
            for name in entry.names
        }
        return WeightStream(shapes, self._arriving(buckets))

    def close(self) -> None:
        """Leave the group; what is under way breaks."""
        self._closed.set()
        group, self._group = self._group, None
        if group is not None:
            threading.Thread(target=_free, args=[group, self._work], daemon=True).start()

    def _arriving(self, buckets: Sequence[Bucket]) -> Iterator[tuple[str, Tensor]]:
        deadline = time.monotonic() + self._timeout
        for bucket in buckets:
            flat = self._empty(bucket)
            self._broadcast(flat, deadline)
            for entry, place in _places(bucket, flat):
                for name in entry.names:
                    yield name, place

    def _empty(self, bucket: Bucket) -> Tensor:
        size = sum(_padded(entry.nbytes) for entry in bucket)
        return torch.empty(size, dtype=torch.uint8, device=self._device)

    def _broadcast(self, flat: Tensor, deadline: float) -> None:
        options, left = dist.BroadcastOptions(), deadline - time.monotonic()
        options.rootRank, options.timeout = 0, timedelta(seconds=max(left, 0.001))
        group = self._group
        with _broken("weights did not arrive"):
            if group is None:
                raise TimeoutError("the group was left")
            self._work = work = group.broadcast([flat], options)
            self._until(work.is_completed, LOOK, deadline)
            work.wait()

    def _until(self, true: Callable[[], bool], pause: float, deadline: float) -> None:
        while not true():
            if self._closed.is_set():
                raise TimeoutError("the group was left")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {self._timeout:g} s")
            time.sleep(pause)


def open_store(host: str, port: int, timeout: float, *, lead: bool = False) -> Any:
    """The table by which processes find each other; rank 0 opens it, at port 0 for a free one."""
    limit = timedelta(seconds=timeout)
    with _broken("no process listens where a group for weights meets"):
        return dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=lead, wait_for_workers=False, timeout=limit
        )


def _name(rank: int) -> str:
    """Key by which a process says that it is there."""
    return f"here/{rank}"


def _places(bucket: Bucket, flat: Tensor) -> Iterator[tuple[Entry, Tensor]]:
    """Each weight of a bucket as a view into its bytes."""
    start = 0
    for entry in bucket:
        place = flat[start : start + entry.nbytes].view(entry.dtype).view(entry.shape)
        start += _padded(entry.nbytes)
        yield entry, place


def _gloo(store: Any, rank: int, meeting: Meeting, host: str) -> Any:
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=host)]
    options._timeout = timedelta(seconds=min(CONNECT, meeting.timeout))
    return dist.ProcessGroupGloo(store, rank, meeting.size, options)


def _nccl(store: Any, rank: int, meeting: Meeting, host: str) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=min(CONNECT, meeting.timeout))
    before = dict(os.environ)
    os.environ.update(NCCL)
    try:
        return dist.ProcessGroupNCCL(store, rank, meeting.size, options)
    finally:
        for name in NCCL:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


def _free(group: Any, work: Any) -> None:
    """End a group; freed earlier, it would wait for its work and stop all threads meanwhile."""
    group.abort()
    while work is not None and not work.is_completed():
        time.sleep(FREE)


@contextmanager
def _broken(what: str) -> Iterator[None]:
    try:
        yield
    except BrokenStream:
        raise
    except (RuntimeError, TimeoutError) as problem:
        raise BrokenStream(f"{what}: {_short(problem)}") from problem


def _short(problem: Exception) -> str:
    """What went wrong, without the place in the source of Gloo and its advice."""
    return re.sub(r"^\w+: (\[[^]]*\] )?", "", one_line(problem)).split(". ")[0]
