"""The result of a run depends on its seed, not on timing, to the last bit."""

import asyncio
import hashlib
import random
from contextlib import AsyncExitStack

import pytest
import torch
from pool_worlds import dawdling
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.auto import AutoModelForCausalLM

from agentgym.engines.local.engine import LocalEngine
from agentgym.env.executor import ThreadExecutor
from agentgym.env.process_pool import ProcessPool
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.player import Player
from agentgym.rollout.setup import EpisodeLimits
from agentgym.settings import ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.trainer import Trainer
from agentgym.types import Sampling, Task
from agentgym_trainers.grpo import GRPO

V = 97
SHAPES = {
    "one query per key": Qwen2Config(
        vocab_size=V, hidden_size=32, num_hidden_layers=2, intermediate_size=48,
        num_attention_heads=2, num_key_value_heads=2,
    ),
    "four queries per key": Qwen3Config(
        vocab_size=V, hidden_size=64, num_hidden_layers=2, intermediate_size=96,
        num_attention_heads=4, num_key_value_heads=1, head_dim=16,
    ),
    "three queries per key": LlamaConfig(
        vocab_size=V, hidden_size=96, num_hidden_layers=2, intermediate_size=64,
        num_attention_heads=6, num_key_value_heads=2,
    ),
    "sums that one thread takes differently for 8 rows": LlamaConfig(
        vocab_size=V, hidden_size=192, num_hidden_layers=2, intermediate_size=576,
        num_attention_heads=6, num_key_value_heads=2,
    ),
}  # fmt: skip
CONTEXT = 900


def words(count, seed):
    return torch.randint(V, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def model_of(kind):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(SHAPES[kind]).eval()


async def converse(engine, number, pauses):
    """Episodes share an opening; contexts exceed the lengths at which sums are split."""
    opening = (5, 150, 330, 520)[number % 4]
    context, sampled = words(opening, number % 4), []
    for turn in range(3):
        for _ in range(pauses.randrange(12)):
            await asyncio.sleep(0)
        asked = Sampling(seed=10 * number + turn, max_tokens=2 + (number + turn) % 5)
        sampled.append(await engine.generate(context, asked))
        context = [*context, *sampled[-1].tokens, *words(1 + 17 * turn, number + turn)]
    engine.finish(context)
    return sampled


def crowd(model, slots, flying, seed):
    """Twelve conversations in some order with some pauses; completions by number."""

    async def play():
        engine, pauses = LocalEngine(model, slots=slots, context=CONTEXT), random.Random(seed)
        gate, order = asyncio.Semaphore(flying), pauses.sample(range(12), 12)

        async def one(number):
            async with gate:
                return number, await converse(engine, number, pauses)

        return dict(await asyncio.gather(*map(one, order)))

    return asyncio.run(play())


@pytest.mark.parametrize(("kind", "threads"), [*zip(SHAPES, (1, 2, 2, 1), strict=True)])
def test_completions_are_batch_invariant_to_the_last_bit(kind, threads):
    model, before = model_of(kind), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = crowd(model, slots=1, flying=1, seed=0)
        for slots, flying, seed in [(2, 2, 1), (4, 12, 2), (16, 12, 3)]:
            assert crowd(model, slots, flying, seed) == alone
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", SHAPES)
def test_logits_do_not_depend_on_how_the_prefill_is_split_at_any_length(kind):
    """By token, in one piece, and in chunks with other rows, beyond the split of sums."""
    decoder = LocalEngine(model_of(kind), context=CONTEXT)._decoder
    context, read = words(600, 0), 0
    for length in range(1, len(context) + 1):
        found = decoder.extend([0], [length - 1], [context[length - 1 : length]])
        if length % 16 in (0, 1, 9):
            assert decoder.extend([1], [0], [context[:length]]).equal(found), length
            others = [words(1 + (length + k) % 40, k) for k in range(3)]
            new = [context[read:length], *others]
            assert decoder.extend([2, 3, 4, 6], [read, 0, 0, 0], new)[:1].equal(found), length
            read = length


async def train(workers, agent, tokenizer):
    """Two steps in slow environments; digests of all episodes and weights."""
    shape = ScratchSettings(
        hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=32
    )
    model = from_scratch.make_model(tokenizer, shape, context=256, seed=0)
    seen = hashlib.sha256()
    async with AsyncExitStack() as stack:
        pool = ProcessPool(workers=workers) if workers else None
        player = Player(
            agent=agent,
            engine=LocalEngine(model, slots=5, context=256),
            make_env=dawdling,
            executor=await stack.enter_async_context(pool) if pool else ThreadExecutor(),
            limits=EpisodeLimits(turns=4, tokens=256),
            sampling=Sampling(max_tokens=4),
            concurrency=9,
        )
        trainer = Trainer(GRPO(group_size=4).build(), Learner(Policy(model)), player)
        for step in range(2):
            tasks = [Task("tests/Dawdling", f"hotter-{3 * step + i}", i) for i in range(3)]
            seen.update(repr((await trainer.run_step(tasks)).groups).encode())
    learned = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        learned.update(name.encode() + weight.numpy().tobytes())
    return seen.hexdigest(), learned.hexdigest()


def test_a_run_does_not_depend_on_workers_or_delays(agent, tokenizer):
    found = [asyncio.run(train(workers, agent, tokenizer)) for workers in (0, 0, 1, 2, 4)]
    assert len(set(found)) == 1, found
