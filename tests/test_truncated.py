"""Truncated episodes: every algorithm defines how they are treated."""

from dataclasses import fields, replace

import pytest
import torch

from agentgym import plugins
from agentgym.batch.collate import collate
from agentgym.testing.episodes import MIXED, made_up
from agentgym.testing.trial import Trial
from agentgym_trainers.copo import COPO
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.epo import EPO
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO
from agentgym_trainers.replay import REPLAYED
from agentgym_trainers.rloo import RLOO
from agentgym_trainers.spear import SPEAR

EVERY = {name: kind() for name, kind in plugins.algorithms().items()} | {
    "copo on tokens": COPO(base=GRPO(loss_aggregation="token-mean")),
    "epo on ppo": EPO(base=PPO()),
    "rloo on tokens": RLOO(loss_aggregation="token-mean"),
}


def masked(config):
    """The same algorithm with truncated episodes masked, by itself or by its base."""
    if "truncated_episodes" in {field.name for field in fields(config)}:
        return replace(config, truncated_episodes="mask")
    return replace(config, base=masked(config.base))


def credited(config):
    """Two steps of credit on a batch with every second episode truncated."""
    trial = Trial("test", config)
    learner, credit = trial.learner(), trial.algorithm.credit
    state = credit.init()
    for step in range(2):
        batch = learner.observe(collate(made_up(step, MIXED)))
        batch = batch.with_(truncated=torch.arange(len(batch.group)) % 2 == 0)
        batch, state = credit.apply(batch, state, step)
    return batch


@pytest.mark.parametrize("name", sorted(EVERY))
def test_masked_episodes_count_in_the_statistics_and_not_in_the_loss(name):
    assert (
        not hasattr(EVERY[name], "truncated_episodes") or EVERY[name].truncated_episodes == "zero"  # type: ignore[attr-defined]
    )
    plain, found = credited(EVERY[name]), credited(masked(EVERY[name]))
    cut = plain.mask & plain.truncated[plain.episode_of_token]
    assert plain.weight[cut].sum() > 0.05
    cut = found.mask & found.truncated[found.episode_of_token]
    assert found.weight[cut].sum() == 0
    own = len(collate(made_up(1, MIXED)).tokens)
    assert float(found.weight[:own].sum()) == pytest.approx(1, abs=1e-5)
    assert found.advantage[:own].equal(plain.advantage[:own])


def test_masked_episodes_are_not_replayed_either():
    for host, expected in [(DrBoT(), True), (DrBoT(truncated_episodes="mask"), False)]:
        batch = credited(SPEAR(base=host, replay_size=32))
        replayed = batch.extra[REPLAYED] > 0
        assert replayed.any()
        assert bool(batch.truncated[batch.episode_of_token][replayed].any()) is expected
