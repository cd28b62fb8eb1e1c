"""Tests that need a GPU: CUDA graphs, FlexAttention gradients, one GPU for engine and trainer."""

import asyncio

import numpy as np
import pytest
import torch
from engine_contract import (
    CONTEXT,
    TIED,
    UNTIED,
    Subject,
    assert_agrees,
    every_rule,
    model_of,
    together,
)
from test_prefixes import SHARING, UPDATE, close, forest_of, gradients

from agentgym.batch.prefix_tree import build_forest
from agentgym.engines.local.cuda_graphs import GraphedDecoder
from agentgym.engines.local.engine import LocalEngine
from agentgym.models import tree_attention
from agentgym.models.policy import Policy
from agentgym.settings import OptimizerSettings
from agentgym.training.learner import Learner

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Raised inside the compiler.
]


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
@every_rule
def test_the_contract(rule, config):
    model = model_of(config)
    engine = LocalEngine(model, slots=8, context=1000, device="cuda")
    assert type(engine._decoder) is GraphedDecoder
    rule(Subject(engine, model))


def test_a_trainer_can_use_the_same_gpu_concurrently():
    model = model_of(TIED)
    learner = Learner(Policy(model_of(SHARING["qwen2"]).cuda()), OptimizerSettings())
    engine = LocalEngine(model, slots=16, context=CONTEXT, device="cuda", cuda_graphs=False)

    async def both():
        async def learn():
            for seed in range(20):
                await asyncio.to_thread(learner.gradient, forest_of(seed), UPDATE, 0)

        talking = asyncio.to_thread(together, engine, range(16))
        return (await asyncio.gather(talking, learn()))[0]

    for found in asyncio.run(both()):
        for prompt, completion in found:
            assert_agrees(model, prompt, completion)


def test_a_sleeping_engine_holds_only_its_weights():
    model = model_of(TIED)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = LocalEngine(model, slots=64, context=CONTEXT, device="cuda")
    loaded = torch.cuda.memory_allocated()
    together(engine, range(32))
    playing = torch.cuda.memory_allocated()
    engine.sleep()
    assert before < loaded < playing
    assert torch.cuda.memory_allocated() == loaded
    assert together(engine, range(32)) == together(engine, range(32))


@pytest.mark.parametrize("kind", sorted(SHARING))
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_flex_attention_equals_block_attention_with_gradients(kind, again, monkeypatch):
    found = []
    for flexes in (True, False):
        monkeypatch.setattr(tree_attention, "flexes", lambda forest, flexes=flexes: flexes)
        how = OptimizerSettings(microbatch_tokens=10_000, gradient_checkpointing=again)
        learner = Learner(Policy(model_of(SHARING[kind]).cuda()), how)
        batch = forest_of(len(kind), rows=40)
        sampled = learner.observe(batch)
        learner.gradient(batch, UPDATE, 0)
        found.append((sampled.logprob, sampled.entropy, gradients(learner.policy.model)))
    for one, other in zip(*found, strict=True):
        assert one.abs().max() > 0.05
        close(one, other)


def test_flex_attention_compiles_once_for_all_batch_sizes(monkeypatch):
    compiled = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    attend = torch.compile(
        torch.nn.attention.flex_attention.flex_attention, dynamic=True, backend=compiled
    )
    monkeypatch.setattr(tree_attention, "_compiled", lambda: attend)
    policy = Policy(model_of(SHARING["qwen3"]).cuda())
    for rows in range(1, 40, 3):
        batch = forest_of(rows, rows=rows)
        forest = build_forest(batch.tokens.cuda(), batch.lengths)
        with torch.no_grad():
            close(policy.hidden(forest, flex=True), policy.hidden(forest, flex=False))
    assert compiled.frame_count <= 3


def test_autocast_log_probabilities_are_close():
    """bfloat16 has eight bits of precision."""
    batch = forest_of(3, rows=40)
    sampled = []
    for autocast in (False, True):
        learner = Learner(
            Policy(model_of(SHARING["qwen2"]).cuda()),
            OptimizerSettings(precision="bfloat16" if autocast else "float32"),
        )
        sampled.append(learner.observe(batch).logprob.numpy())
    gap = np.abs(sampled[0] - sampled[1])[batch.mask.numpy()]
    assert 0 < gap.mean() < 0.05
