"""Weights of a cluster by broadcast: engines die at any time, and none samples from a mixture."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agentgym import errors, train
from agentgym.cluster import publication
from agentgym.cluster.publication import Publication
from agentgym.settings import ClusterSettings

HERE = Path(__file__).parent
ROOT = HERE.parent
TIMEOUT = 10
"""Seconds of a broadcast in ``broadcast_worker``."""


@pytest.fixture(scope="module")
def played():
    """The result of a fate, and how many seconds the publication in its time took."""
    pytest.importorskip("ray")

    def play(fate):
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "envs", ROOT / "trainers", HERE)))
        done = subprocess.run(
            [sys.executable, HERE / "broadcast_worker.py", fate],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return play


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fate", "seconds"),
    [
        ("none", TIMEOUT / 2),
        # Noticed at once, not at the time limit.
        ("killed between", TIMEOUT / 2),
        ("killed joining", TIMEOUT / 2),
        ("killed within", TIMEOUT / 2),
        ("stopped within", 2.5 * TIMEOUT),
    ],
)
def test_all_engines_that_live_have_the_weights_that_were_published(fate, seconds, played):
    found = played(fate)
    lost = fate != "none"
    first, second, third = (found[name] for name in ("first", "second", "third"))
    assert first[1:] == third[1:] == [3, True]
    assert second[2] and second[0] < seconds
    assert found["all"], "the replacement has the weights of this version"
    assert found["deaths"] == lost
    # Requests in flight go on; each token is of one of both.
    assert len(found["versions"]) == 3 - lost
    assert all(set(versions) <= {1, 2} for versions in found["versions"])
    broken = [line for line in found["lines"] if "a broadcast of weights broke" in line]
    assert len(broken) == lost
    assert all(line.endswith("2 of 3 engines got them through the object store") for line in broken)


class Store:
    """In place of Ray: what was put, with a count."""

    def __init__(self):
        self.held = []

    def put(self, packed):
        self.held.append({name: each.data.copy() for name, each in packed.items()})
        return len(self.held) - 1


@pytest.fixture
def store(monkeypatch):
    made = Store()
    monkeypatch.setattr(publication, "ray_library", lambda: made)
    return made


def test_a_copy_is_made_when_an_engine_asks_and_once(store):
    weights = {"a": torch.arange(3.0)}
    published = Publication(4, lambda: weights)
    assert store.held == []
    assert published.packed() == published.packed() == 0
    assert torch.equal(torch.from_numpy(store.held[0]["a"]).view(torch.float32), weights["a"])


@pytest.mark.parametrize("keep", [False, True])
def test_weights_that_have_changed_are_not_given_as_the_old_ones(keep, store):
    """A copy is kept where the engines go on with the old ones."""
    weights = {"a": torch.arange(3.0)}
    published = Publication(4, lambda: weights)
    published.retire(keep=keep)
    weights["a"].mul_(2)
    published.retire(keep=keep)
    assert published.packed() == (0 if keep else None)
    assert len(store.held) == keep
    if keep:
        held = torch.from_numpy(store.held[0]["a"]).view(torch.float32)
        assert torch.equal(held, torch.arange(3.0))


def test_adapters_alone_are_not_broadcast(tmp_path):
    given = {"address": "local", "sync": "broadcast"}
    with pytest.raises(errors.ConfigError, match=r"set `--lora.sync merged`") as error:
        train(
            env="hotter",
            engine="vllm",
            lora={"rank": 4, "sync": "adapters"},
            out=tmp_path / "run",
            cluster=given,
        )
    assert "\n" not in str(error.value)


def test_the_time_limit_is_positive():
    with pytest.raises(errors.ImpossibleValue, match=r"cluster.sync_timeout is 0"):
        ClusterSettings(sync_timeout=0)
