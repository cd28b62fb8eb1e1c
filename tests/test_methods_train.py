"""The four methods and PPO through the trainer: a real engine, a real checkpoint, mixed groups."""

import asyncio
import copy
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parity import Parity

import agentgym_trainers
from agentgym import Task
from agentgym.engines.local.engine import LocalEngine
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.action_formats import Plain
from agentgym.rollout.agent import ChatAgent
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.trainer import Trainer
from agentgym.types import Sampling
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.aepo_arbitrary import AEPOArbitrary
from agentgym_trainers.dcpo import DCPO
from agentgym_trainers.empg import EMPG
from agentgym_trainers.epo import EPO
from agentgym_trainers.etmr import ETMR
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.pear import PEAR
from agentgym_trainers.ppo import PPO
from agentgym_trainers.siren import SIREN
from agentgym_trainers.spear import SPEAR

SMALL = GRPO(group_size=3, minibatches=1)


def trainer(tokenizer, config):
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
    player = Player(
        agent=ChatAgent(tokenizer, action_format=Plain()),
        engine=LocalEngine(model, slots=6, context=256),
        make_env=lambda task: Parity(),
        limits=EpisodeLimits(turns=3, tokens=256),
        sampling=Sampling(max_tokens=4),
        concurrency=6,
    )
    return Trainer(
        config.build(), Learner(Policy(model), OptimizerSettings(warmup_steps=1)), player
    )


def step(trainer):
    tasks = [Task("test/Parity-v0", f"parity-{k}") for k in (1, 2)]
    return asyncio.run(trainer.run_step(tasks))


def outcomes(step):
    return [
        [(t.shared_turns, t.reward, [turn.completion.tokens for turn in t.turns]) for t in group]
        for group in step.groups
    ]


@pytest.mark.parametrize(
    "config",
    [
        EPO(base=SMALL),
        EPO(base=PPO(group_size=3, minibatches=1)),
        EMPG(base=SMALL),
        SPEAR(),
        AEPO(base=SMALL),
        SIREN(base=SMALL),
        DCPO(base=SMALL),
        AEPOArbitrary(base=SMALL, replayed_task_ratio=0.0),
        ETMR(base=SMALL, initial_rollouts=1, peaks_per_root=1, branches_per_peak=2),
        PEAR(base=SMALL),
    ],
    ids=lambda config: type(config).__name__,
)
def test_a_method_trains_and_resumes_from_a_checkpoint(tokenizer, config):
    one = trainer(tokenizer, config)
    first = step(one)
    assert all(math.isfinite(value) for value in first.metrics.values())
    assert first.metrics["update/grad_norm"] > 0
    sizes = {len(group) for group in first.groups}
    assert sizes == {8 if isinstance(config, SPEAR) else 3}
    file = io.BytesIO()
    torch.save(one.state(), file)
    file.seek(0)
    twin = trainer(tokenizer, config)
    twin.learner.policy.model.load_state_dict(copy.deepcopy(one.learner.policy.model.state_dict()))
    twin.restore(torch.load(file, weights_only=True))
    left, right = step(one), step(twin)
    assert outcomes(left) == outcomes(right)
    # Engine outputs depend, up to rounding, on the other requests in flight.
    for name, value in left.metrics.items():
        if not name.startswith(("time/", "tokens_per_second", "policy/logprob_gap")):
            assert right.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


def mixed(marker):
    """The algorithm that a snippet of the algorithms' README composes."""
    text = (Path(agentgym_trainers.__file__).parent / "README.md").read_text()
    (code,) = (part for part in text.split("```python\n")[1:] if marker in part.partition("```")[0])
    names = {}
    exec(code.partition("```")[0], names)
    return names["mixed"]


def trained(tokenizer, algorithm):
    """One training step of an algorithm without a registered configuration."""
    one = trainer(tokenizer, SMALL)
    learner = Learner(one.learner.policy, OptimizerSettings(warmup_steps=1))
    return step(Trainer(algorithm, learner, one.player))


def test_components_of_different_methods_train_together(tokenizer):
    """PEAR's penalty and SIREN's regulariser on GSPO, as combined in the algorithms' README."""
    algorithm = replace(mixed("charge_thoughts"), collect=SMALL.build().collect)
    metrics = trained(tokenizer, algorithm).metrics
    assert metrics["update/grad_norm"] > 0 and all(map(math.isfinite, metrics.values()))


def test_one_methods_update_trains_on_anothers_collector(tokenizer):
    """EPO's update on AEPO's collector, as combined in the algorithms' README."""
    found = trained(tokenizer, mixed("collect=AEPO()"))
    assert {len(group) for group in found.groups} == {AEPO().base.group_size}
    assert any(t.shared_turns for group in found.groups for t in group)
    assert "update/norm/corridor" in found.metrics
    assert all(map(math.isfinite, found.metrics.values()))


def test_a_second_rollout_at_another_temperature_trains(tokenizer):
    found = step(
        trainer(
            tokenizer, AEPOArbitrary(base=SMALL, replayed_task_ratio=1.0, max_replaced_ratio=0.5)
        )
    )
    assert {len(group) for group in found.groups} == {6}
    assert all(map(math.isfinite, found.metrics.values()))
