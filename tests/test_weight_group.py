"""Weights from one process to others over a group of their own: every byte, or an error in time."""

import itertools
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from agentgym.engines.weight_group import Meeting, WeightGroup, buckets_of, open_store
from agentgym.engines.weight_stream import BrokenStream

HOST = "127.0.0.1"
SIZE = 1000


def weights():
    """All that a state dict may hold; named without order."""
    made, tied = torch.Generator().manual_seed(0), torch.arange(12.0).reshape(3, 4)
    return {
        "head": tied,
        "half": torch.randn(5, generator=made).bfloat16(),
        "large": torch.randn(999, 3, generator=made),
        "turned": torch.randn(4, 6, generator=made).T,
        "number": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "none": torch.empty(0, 3),
        "bits": torch.tensor([True, False, True]),
        "embedding": tied.detach(),  # As in a state dict: another object, the same memory.
        "part": tied[:, :2],
        "last": torch.zeros(10_000_000),  # More than the buffers of a connection hold.
    }


def test_tied_weights_are_sent_once_and_buckets_are_bounded():
    buckets = buckets_of(weights(), SIZE)
    entries = [entry for bucket in buckets for entry in bucket]
    assert sorted(name for entry in entries for name in entry.names) == sorted(weights())
    assert ("head", "embedding") in [entry.names for entry in entries]
    for bucket in buckets:
        assert len(bucket) == 1 or sum(entry.nbytes for entry in bucket) <= SIZE
    # As few as that allows: two neighbours together are too large.
    for one, two in itertools.pairwise(buckets):
        assert sum(-(-entry.nbytes // 16) * 16 for entry in (*one, *two)) > SIZE


def receive(rank, pipe, fate):
    """A process that receives twice; its fate is the signal it gets in the middle of the first."""
    with pipe:
        pipe.send("ready")
        try:
            meeting = pipe.recv()
            group = WeightGroup(meeting, rank, HOST)
            group.join()
            for n, _ in enumerate(group.receive(buckets_of(weights(), SIZE))):
                if fate and n == 2:
                    os.kill(os.getpid(), fate)
            pipe.send(dict(group.receive(buckets_of(weights(), SIZE))))
        except BrokenStream as problem:
            pipe.send(str(problem))
        pipe.recv()


class Crew:
    """Rank 0 here, and processes that receive."""

    def __init__(self, fates, timeout=30.0, missing=0):
        context = multiprocessing.get_context("forkserver")
        self.pipes, self.processes = [], []
        for rank, fate in enumerate(fates, 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=receive, args=(rank, theirs, fate), daemon=True)
            self.processes.append(process)
            process.start()
            theirs.close()
            self.pipes.append(ours)
        for pipe in self.pipes:
            assert pipe.recv() == "ready"
        self.store = open_store(HOST, 0, timeout, lead=True)
        self.meeting = Meeting(HOST, self.store.port, len(fates) + missing + 1, "gloo", timeout)
        for pipe in self.pipes:
            pipe.send(self.meeting)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        for process in self.processes:
            process.kill()
            process.join()

    def join(self):
        group = WeightGroup(self.meeting, 0, HOST, self.store)
        group.join()
        return group


@pytest.mark.parametrize("members", [1, 3])
def test_every_byte_arrives_at_every_process(members):
    with Crew([0] * members) as crew:
        group, sent = crew.join(), weights()
        for _ in range(2):
            group.send(sent, buckets_of(sent, SIZE))
        for pipe in crew.pipes:
            found = pipe.recv()
            assert found.keys() == sent.keys()
            for name, weight in sent.items():
                assert found[name].dtype == weight.dtype and found[name].shape == weight.shape
                assert torch.equal(found[name], weight), name
            pipe.send(None)
        group.close()


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_who_sends_to_a_lost_process_does_not_wait_for_ever(fate):
    with Crew([0, fate, 0], timeout=4.0) as crew:
        group, sent = crew.join(), weights()
        start = time.monotonic()
        with pytest.raises(BrokenStream):
            for _ in range(2):
                group.send(sent, buckets_of(sent, SIZE))
        assert time.monotonic() - start < 8
        group.close()


def test_a_group_whose_others_do_not_come_is_given_up():
    start = time.monotonic()
    with Crew([0], timeout=2.0, missing=1) as crew:
        with pytest.raises(BrokenStream, match="was not complete"):
            crew.join()
        assert "was not complete" in crew.pipes[0].recv()
    assert time.monotonic() - start < 20


def test_a_group_that_is_closed_breaks_what_is_under_way():
    """Long before the time limit."""
    with Crew([signal.SIGSTOP, 0], timeout=60.0) as crew, ThreadPoolExecutor() as threads:
        group, sent = crew.join(), weights()
        sending = threads.submit(group.send, sent, buckets_of(sent, SIZE))
        time.sleep(2)
        assert not sending.done()
        start = time.monotonic()
        group.close()
        with pytest.raises(BrokenStream, match="was left"):
            sending.result()
        with pytest.raises(BrokenStream, match="was left"):
            group.send(sent, buckets_of(sent, SIZE))
        assert time.monotonic() - start < 5
