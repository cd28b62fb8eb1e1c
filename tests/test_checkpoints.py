"""Checkpoints: whole or not there, at once or in the background; the tensors that ranks write."""

import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch

from agentgym import plugins
from agentgym.algorithm import DEFAULT_RUN
from agentgym.errors import ConfigError
from agentgym.experiment.checkpoints import Checkpoints, load_state
from agentgym.experiment.run_folder import RunFolder
from agentgym.models import from_scratch
from agentgym.models.loading import load_model
from agentgym.models.policy import Policy
from agentgym.settings import ScratchSettings
from agentgym.training.cpu_copy import cpu_copy
from agentgym.training.learner import Learner

TOKENIZER = from_scratch.make_tokenizer(["".join(map(chr, range(97, 123)))] * 3, 300)


def learner_of(seed, *, hidden=16, steps=1):
    """A learner of PPO, which has a critic, after steps with made-up gradients."""
    shape = ScratchSettings(
        hidden_size=hidden, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    model = from_scratch.make_model(TOKENIZER, shape, context=64, seed=seed)
    learner = Learner(Policy(model), seed=seed)
    learner.attach(plugins.algorithm("ppo")().build(DEFAULT_RUN))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for network, optimizer in (
            (learner.policy.model, learner.optimizer),
            (learner.critic.network.model, learner.critic.optimizer),
        ):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    return learner


def everything(learner):
    named = dict(learner.policy.model.named_parameters()) | learner.networks.tensors().named()
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def restored(where):
    learner = Learner(Policy(load_model(where)), seed=9)
    learner.attach(plugins.algorithm("ppo")().build(DEFAULT_RUN))
    learner.restore(load_state(where)["learner"], where)
    return everything(learner)


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def saver(folder, learner, *, background):
    return Checkpoints(folder, learner, TOKENIZER, background=background)


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_holds_what_was_there_when_it_was_saved(tmp_path, background):
    learner, folder = learner_of(1), RunFolder(tmp_path)
    before, go_on = everything(learner), threading.Event()
    write = learner.policy.model.save_pretrained

    def late(*arguments, **options):
        assert go_on.wait(60)
        write(*arguments, **options)

    learner.policy.model.save_pretrained = late if background else write
    with saver(folder, learner, background=background) as checkpoints:
        state = {"learner": learner.state(), "step": 1}
        checkpoints.save(folder.step(1), state)
        assert folder.step(1).exists() is not background
        with torch.no_grad():
            for tensor in (*learner.policy.model.parameters(), *everything_live(learner)):
                tensor.add_(1)
        state["step"] = 2
        go_on.set()
    same(restored(folder.step(1)), before)
    assert load_state(folder.step(1))["step"] == 1


def everything_live(learner):
    return learner.networks.tensors().named().values()


def test_a_failure_in_the_background_is_one_line_at_the_next_save(tmp_path):
    learner, folder = learner_of(1), RunFolder(tmp_path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    write, learner.policy.model.save_pretrained = learner.policy.model.save_pretrained, full
    with saver(folder, learner, background=True) as checkpoints:
        checkpoints.save(folder.step(1), {"learner": learner.state()})
        with pytest.raises(
            ConfigError, match=r"cannot write .*step-0001: No space left"
        ) as refused:
            checkpoints.save(folder.step(2), {"learner": learner.state()})
        learner.policy.model.save_pretrained = write
        checkpoints.save(folder.step(3), {"learner": learner.state()})
    assert "\n" not in str(refused.value)
    assert folder.latest_step() == folder.step(3)
    with (
        pytest.raises(ConfigError, match="cannot write"),
        saver(folder, learner, background=True) as checkpoints,
    ):
        learner.policy.model.save_pretrained = full
        checkpoints.save(folder.step(4), {"learner": learner.state()})


def killed(root):
    """In a process of its own: save, and die while the next checkpoint is written."""
    learner, folder = learner_of(1), RunFolder(root)

    class Deadly:
        def save_pretrained(self, where):
            assert list(where.glob("*.safetensors"))
            os.kill(os.getpid(), signal.SIGKILL)

    with saver(folder, learner, background=True) as checkpoints:
        checkpoints.save(folder.step(1), {"learner": learner.state()})
        checkpoints.wait()
        checkpoints.tokenizer = Deadly()
        checkpoints.save(folder.step(2), {"learner": learner.state()})


def test_a_process_killed_while_it_writes_leaves_the_last_checkpoint(tmp_path):
    code = f"import test_checkpoints as it, pathlib; it.killed(pathlib.Path({str(tmp_path)!r}))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    folder = RunFolder(tmp_path)
    left = tmp_path / "checkpoints" / ".step-0002.partial"
    assert folder.latest_step() == folder.step(1) and left.exists()
    same(restored(folder.step(1)), everything(learner_of(1)))
    (left / "old.safetensors").touch()
    other = learner_of(2)
    with saver(folder, other, background=False) as checkpoints:
        checkpoints.save(folder.step(2), {"learner": other.state()})
    assert not left.exists() and not (folder.step(2) / "old.safetensors").exists()
    same(restored(folder.step(2)), everything(other))


def test_tensors_that_share_memory_share_it_in_a_copy():
    table = torch.ones(3, 2)
    state = {"head": table, "embedding": table.detach(), "rest": [torch.zeros(1), ("a", 2)]}
    copied = cpu_copy(state)
    assert copied["head"].data_ptr() == copied["embedding"].data_ptr() != table.data_ptr()
    table.add_(1)
    assert torch.equal(copied["head"], torch.ones(3, 2)) and copied["rest"] == [
        torch.zeros(1),
        ("a", 2),
    ]


# ---- files of ranks ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    tensors = learner_of(1).networks.tensors()
    write_alone(tensors, tmp_path)
    return tmp_path, len(tensors.named())


def write_alone(tensors, folder):
    """Write as a single rank does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        tensors.saving(folder, None, copies=False)()


def test_the_tensors_of_a_learner_come_back(written):
    folder, count = written
    learner = learner_of(2, steps=3)
    learner.networks.tensors().read(folder, count)
    same(learner.networks.tensors().named(), learner_of(1).networks.tensors().named())


def test_tensors_of_another_model_or_a_part_of_them_are_refused(written):
    folder, count = written
    with pytest.raises(ConfigError, match=r"has shape \(1, 16\), expected \(1, 32\)"):
        learner_of(1, hidden=32).networks.tensors().read(folder, count)
    with pytest.raises(ConfigError, match=f"{count} of {count + 1} tensors are there"):
        learner_of(1).networks.tensors().read(folder, count + 1)
    (file,) = folder.glob("*.safetensors")
    file.unlink()
    with pytest.raises(ConfigError, match=f"0 of {count} tensors are there"):
        learner_of(1).networks.tensors().read(folder, count)


def test_a_learner_that_took_no_step_has_no_moments(tmp_path):
    fresh = learner_of(1, steps=0).networks.tensors()
    names = fresh.named()
    assert names and all(name.startswith("critic/") for name in names)
    write_alone(fresh, tmp_path)
    learner = learner_of(2)
    learner.networks.tensors().read(tmp_path, len(names))
    assert learner.networks.tensors().named().keys() == names.keys()
