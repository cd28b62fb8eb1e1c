"""A loss that diverges in a real run is not applied, and can be computed again."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import SMALL_RUN
from transformers import AutoModelForCausalLM

from agentgym.algorithm import extend
from agentgym.batch.batch import token_mean
from agentgym.credit.transforms import stateless
from agentgym.errors import ConfigError, TrainingError
from agentgym.experiment.failed_step import load_failed_step, recompute
from agentgym.experiment.job import run_blocking
from agentgym.experiment.run_folder import RunFolder
from agentgym.losses.compose import scale
from agentgym.settings import ImitationSettings, OptimizerSettings, PanelSettings
from agentgym.training.warmup import IMITATION
from agentgym.utils.progress import Display
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO

SAVED = replace(
    SMALL_RUN,
    save_every=1,
    imitation=ImitationSettings(max_steps=10, demos_per_task=1, until_success=1.0),
    optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0),
    rollout=replace(SMALL_RUN.rollout, max_turns=4),
    panel=PanelSettings(tasks=2, episodes=1),
)


def tilted(host):
    """The algorithm with credit for some tokens, so that there is always a gradient."""

    def tilt(batch):
        return batch.with_(
            advantage=(batch.tokens % 5 - 2.0) * batch.mask, weight=token_mean(batch.mask)
        )

    return extend(host.build(), credit=stateless(tilt))


def exploding(host, *, step, factor):
    """The same with a loss that is multiplied by ``factor`` at one training step."""
    algorithm = tilted(host)
    update = algorithm.updates[0]
    loss = scale(lambda now: factor if now == step else 1.0, update.loss)
    return replace(algorithm, updates=(replace(update, loss=loss),))


def fail(folder, algorithm, experiment=SAVED):
    with pytest.raises(TrainingError) as problem:
        run_blocking(experiment, algorithm, folder, Display())
    return str(problem.value)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("warm"))
    run_blocking(replace(SAVED, steps=0), GRPO(group_size=4).build(), folder, Display())
    return replace(SAVED, model=str(folder.warm), imitation=ImitationSettings(max_steps=0))


def weights(where):
    return AutoModelForCausalLM.from_pretrained(where).state_dict()


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_with_a_non_finite_loss_is_saved_and_not_applied(warm, tmp_path, factor):
    folder = RunFolder(tmp_path)
    algorithm = exploding(PPO(group_size=4, minibatches=1), step=1, factor=factor)
    text = fail(folder, algorithm, warm)
    where = folder.failed(1)
    assert "\n" not in text and str(where) in text and "step 1" in text
    before, kept = weights(folder.step(1)), weights(where)
    assert all(before[name].equal(kept[name]) for name in before)
    assert not folder.final.exists()
    found = recompute(where, algorithm.updates)
    assert not math.isfinite(found.loss)
    # The same minibatch under the correct loss: everything it reads was saved.
    sound = recompute(where, tilted(PPO(group_size=4, minibatches=1)).updates)
    assert math.isfinite(sound.loss) and sound.grad_norm > 0


def test_a_gradient_that_overflows_while_the_loss_does_not_stops_the_run(warm, tmp_path):
    """A factor at the end of float32's range: the loss is finite, the sum of squares is not."""
    folder = RunFolder(tmp_path)
    algorithm = exploding(GRPO(group_size=4, minibatches=1), step=0, factor=1e37)
    text = fail(folder, algorithm, warm)
    assert "grad_norm of update 'update' at step 0 is inf" in text
    found = recompute(folder.failed(0), algorithm.updates)
    assert math.isfinite(found.loss) and found.grad_norm == math.inf
    before, kept = weights(folder.warm), weights(folder.failed(0))
    assert all(before[name].equal(kept[name]) for name in before)


def test_the_saved_minibatch_reproduces_the_loss_of_the_run(warm, tmp_path):
    """A learning rate that makes the weights diverge in the first of two optimiser steps."""
    folder = RunFolder(tmp_path)
    ruinous = replace(warm, optimizer=OptimizerSettings(learning_rate=1e30, warmup_steps=0))
    algorithm = tilted(GRPO(group_size=4, minibatches=2))
    text = fail(folder, algorithm, ruinous)
    assert "Lower the learning rate" in text
    where = folder.failed(0)
    assert f" is {recompute(where, algorithm.updates).loss}" in text
    assert max(float(value.abs().max()) for value in weights(where).values()) > 1e20


def test_a_diverged_warm_up_is_saved_too(tmp_path):
    folder = RunFolder(tmp_path)
    ruinous = replace(SAVED, imitation=replace(SAVED.imitation, learning_rate=1e30))
    text = fail(folder, GRPO(group_size=4).build(), ruinous)
    [where] = Path(tmp_path).glob("failed-step-*")
    assert str(where) in text
    assert not math.isfinite(recompute(where, (IMITATION,)).loss)
    assert load_failed_step(where).batch.mask.any()
    with pytest.raises(ConfigError, match="of the update 'imitate', got update"):
        recompute(where, GRPO().build().updates)


def test_a_folder_without_a_failed_step_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no failed step"):
        recompute(tmp_path, ())
    assert torch.is_grad_enabled()
