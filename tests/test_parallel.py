"""Work split among cores is complete and returned in order."""

import random
import threading
import time

import numpy as np
import pytest
import torch
from engine_contract import V, shaped, words
from transformers import Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from agentgym.engines.local import parallel, slotted
from agentgym.engines.local.parallel import run_parallel
from agentgym.engines.local.slotted import SlottedDecoder


@pytest.fixture
def cores():
    """Set two threads, and restore the previous number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def in_another_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_pool_threads_use_one_core_and_other_threads_keep_their_setting(cores):
    parallel._threads.cache_clear()  # The pool threads are created here.
    both = threading.Barrier(cores, timeout=30)

    def who(_):
        both.wait()  # Passes only while both parts are being computed.
        return threading.current_thread().name, torch.get_num_threads()

    found = run_parallel(who, range(cores), cores)
    assert len(dict(found)) == cores
    assert {count for _, count in found} == {1}
    assert torch.get_num_threads() == in_another_thread(torch.get_num_threads) == cores


def test_an_error_is_raised_after_all_parts_have_ended(cores):
    done = []

    def compute(number):
        if number == 0:
            raise ValueError("the first")
        time.sleep(0.2)
        done.append(number)

    with pytest.raises(ValueError, match="the first"):
        run_parallel(compute, range(4), cores)
    assert sorted(done) == [1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_rows_are_split_into_balanced_disjoint_parts(count):
    draw = random.Random(count)
    rows = draw.sample(range(200), 150)
    counts = [draw.choice([1, 1, 40, 90, 300]) for _ in rows]
    pieces = parallel.split_rows(rows, counts, count)
    if count == 1:
        assert pieces == []
        return
    assert sorted(np.concatenate(pieces)) == list(range(150))
    assert len(pieces) % count == 0
    sizes = [sum(counts[i] for i in piece) for piece in pieces]
    assert max(sizes) < min(parallel.CHUNK_TOKENS, sum(counts) / len(pieces)) + 300
    singles = [piece for piece in pieces if any(counts[i] == 1 for i in piece)]
    assert len(singles) == 1, "neighbours share an attention call"


@pytest.mark.parametrize("counts", [[1] * 64, [600] + [1] * 63, [1000, 30], [90] * 11])
def test_a_call_is_not_split_if_a_core_would_be_idle(counts):
    assert parallel.split_rows(range(len(counts)), counts, 2) == []


def test_a_split_call_gives_bit_identical_logits(cores, monkeypatch):
    torch.manual_seed(0)
    config = Qwen2Config(**{**shaped(), "max_position_embeddings": 1024})
    model = AutoModelForCausalLM.from_config(config).eval()
    draw = random.Random(0)
    rows = draw.sample(range(24), 20)
    first = [words(draw.choice([50, 120]), k) for k in rows]
    then = [words(draw.choice([1, 60, 150]), 100 + k) for k in rows]
    shared = []

    def watched(compute, pieces, cores):
        shared.append(len(pieces))
        return run_parallel(compute, pieces, cores)

    monkeypatch.setattr(slotted, "run_parallel", watched)

    def logits():
        decoder = SlottedDecoder(
            config,
            model.state_dict(),
            context=1024,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )
        before = decoder.extend(rows, [0] * len(rows), first)
        return torch.stack([before, decoder.extend(rows, [len(f) for f in first], then)])

    apart = logits()
    assert len(shared) == 2
    assert min(shared) > 1
    torch.set_num_threads(1)
    assert apart.equal(logits())
    assert len(shared) == 2, "these calls were whole"
    assert apart.shape == (2, len(rows), V)
