"""Continuous batching changes the time that completions take, not the completions."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engine_contract import model_calls
from engine_contract import model_of as opinionated
from transformers import GPT2Config, MistralConfig, Qwen2Config

from agentgym.engines import Engine
from agentgym.engines.local import sampling, scheduler
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.local.scheduler import Scheduler
from agentgym.errors import ConfigError, OutOfMemory
from agentgym.types import Sampling

V, CONTEXT = 50, 256
GROUPS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SIZE = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
CONFIGS = {
    "fused": Qwen2Config(**SIZE, **GROUPS),
    "generic": GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4),
    "generic, cannot be cut": MistralConfig(**SIZE, **GROUPS, sliding_window=8),
}
every_decoder = pytest.mark.parametrize("kind", CONFIGS)


def model_of(kind="fused", seed=0):
    return opinionated(CONFIGS[kind], seed)


def engine_of(kind="fused", slots=8):
    return LocalEngine(model_of(kind), slots=slots, context=CONTEXT)


def words(count, seed):
    return np.random.default_rng(seed).integers(0, V, count).tolist()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def reused(engine, before):
    """Prompt tokens computed and read from the cache since then."""
    new = engine.stats().since(before)
    return new.prefill_tokens, new.cached_tokens


async def converse(engine, number, turns=4, pauses=None):
    """Conversations with the same number modulo 3 share a prefix and then diverge."""
    context, sampled = words(20 + number % 3, number % 3), []
    for turn in range(turns):
        for _ in range(pauses.randrange(6) if pauses else 0):
            await asyncio.sleep(0)
        asked = Sampling(seed=100 * number + turn, max_tokens=3 + (number + turn) % 4)
        sampled.append(await engine.generate(context, asked))
        context = [*context, *sampled[-1].tokens, *words(2 + turn, number + turn)]
    engine.finish(context)
    return sampled


async def crowd(engine, order, flying, pauses):
    """Run conversations in this order with limited concurrency."""
    gate = asyncio.Semaphore(flying)

    async def one(number):
        async with gate:
            return await converse(engine, number, pauses=pauses)

    return await asyncio.gather(*map(one, order))


def same(one, other):
    """Equal tokens, and log-probabilities equal up to rounding."""
    for a, b in zip(one, other, strict=True):
        assert a.tokens == b.tokens
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=2e-5)
        np.testing.assert_allclose(a.entropies, b.entropies, atol=5e-5)


# ---- independence ------------------------------------------------------------------------------


@every_decoder
def test_completions_do_not_depend_on_slots_concurrency_or_arrival_order(kind):
    count = 9 if kind == "fused" else 5
    alone = [asyncio.run(converse(engine_of(kind, 1), number)) for number in range(count)]
    for slots, flying, seed in [(1, 3, 0), (3, count, 1), (4, 4, 2), (16, count, 3)]:
        engine, rng = engine_of(kind, slots), random.Random(seed)
        order = rng.sample(range(count), count)

        found = asyncio.run(crowd(engine, order, flying, rng))
        for number, sampled in zip(order, found, strict=True):
            same(sampled, alone[number])


# ---- cache -------------------------------------------------------------------------------------


@every_decoder
def test_a_turn_prefills_only_its_new_tokens(kind):
    """The last token of a completion was sampled and never read, so it counts as added."""
    engine = engine_of(kind)

    async def play():
        context, held = words(30, 0), 0
        for turn in range(6):
            before = engine.stats()
            sampled = await engine.generate(context, Sampling(seed=turn, max_tokens=5))
            assert reused(engine, before) == (len(context) - held, held)
            held = len(context) + 4
            context = [*context, *sampled.tokens, *words(7, turn)]

    asyncio.run(play())


@every_decoder
def test_a_group_prefills_its_shared_prompt_once(kind):
    engine, prompt = engine_of(kind, slots=8), words(40, 0)

    async def group():
        asked = (Sampling(seed=seed, max_tokens=4) for seed in range(8))
        return await asyncio.gather(*(engine.generate(prompt, one) for one in asked))

    sampled = asyncio.run(group())
    # At least one token must be processed to predict the next.
    assert engine.stats()[:2] == (40 + 7, 7 * 39)
    assert len({c.tokens for c in sampled}) > 4
    for seed, completion in enumerate(sampled):
        asked = Sampling(seed=seed, max_tokens=4)
        same([completion], [asyncio.run(engine_of(kind).generate(prompt, asked))])


@every_decoder
def test_a_fork_copies_the_shared_prefix(kind):
    """Two continuations of one conversation, one of them branching before its last turn."""
    engine = engine_of(kind)
    early = words(30, 0)
    late = [*early, *words(20, 1)]

    async def ask(prompt):
        before = engine.stats()
        sampled = await engine.generate(prompt, Sampling(seed=1, max_tokens=3))
        return sampled, reused(engine, before)

    async def play():
        await ask(late)
        return [await ask([*early, *words(8, 2)]), await ask([*late[:45], *words(9, 3)])]

    (first, counted), (second, counted_too) = asyncio.run(play())
    assert (counted, counted_too) == ((8, 30), (9, 45))
    fresh = (Sampling(seed=1, max_tokens=3), engine_of(kind))
    same([first], [asyncio.run(fresh[1].generate([*early, *words(8, 2)], fresh[0]))])
    same([second], [asyncio.run(fresh[1].generate([*late[:45], *words(9, 3)], fresh[0]))])


def test_a_busy_slot_can_be_copied_from():
    """100 one-token completions of one prompt in 10 slots: about ten model calls, not 100."""
    engine, prompt = engine_of(slots=10), words(40, 0)

    async def many():
        asked = (Sampling(seed=seed, max_tokens=1) for seed in range(100))
        await asyncio.gather(*(engine.generate(prompt, one) for one in asked))

    asyncio.run(many())
    assert engine.stats().generated == 100
    assert engine.stats().steps <= 12


def test_the_slot_of_a_finished_episode_is_reused_first():
    engine = engine_of(slots=2)

    async def play(finished):
        going, done, new = words(30, 10 * finished), words(30, 1), words(30, 10 * finished + 2)
        sampled = [await engine.generate(x, Sampling(max_tokens=2)) for x in (going, done)]
        if finished:
            engine.finish([*done, *sampled[1].tokens])
        await engine.generate(new, Sampling(max_tokens=2))
        before = engine.stats()
        await engine.generate([*going, *sampled[0].tokens, 1], Sampling(max_tokens=2))
        return reused(engine, before)

    assert asyncio.run(play(finished=True)) == (2, 31)
    # Without a finished episode the engine takes the slot that has been idle longest.
    assert asyncio.run(play(finished=False)) == (33, 0)


def test_more_episodes_than_slots_complete():
    engine = engine_of(slots=3)

    async def all_of_them():
        return await asyncio.gather(*(converse(engine, number, turns=3) for number in range(20)))

    found = asyncio.run(asyncio.wait_for(all_of_them(), 60))
    assert [len(sampled) for sampled in found] == [3] * 20


def test_a_completed_request_frees_its_slot_at_once():
    """Nine completions of 2 tokens pass through one slot while one of 18 fills the other."""
    engine = engine_of(slots=2)

    async def one(number, length):
        prompt = words(5, number)
        sampled = await engine.generate(prompt, Sampling(seed=number, max_tokens=length))
        engine.finish([*prompt, *sampled.tokens])
        return sampled

    async def play():
        lengths = [18] + [2] * 9
        return await asyncio.gather(*(one(n, length) for n, length in enumerate(lengths)))

    sampled = asyncio.run(play())
    assert [len(c.tokens) for c in sampled] == [18] + [2] * 9
    stats = engine.stats()
    # In lockstep pairs it would be 18 + 4 * 2 model calls.
    assert stats.generated == stats.rows == 36 and stats.steps <= 20


def test_follow_up_requests_join_the_next_model_call(monkeypatch):
    monkeypatch.setattr(scheduler, "regroup_delay", lambda *_: 5.0)
    assert model_calls(engine_of(), turns=6, length=5) == 6 * 5


def test_episodes_that_end_do_not_delay_the_others():
    """Nine short completions end beside a long one, without follow-up requests."""
    engine = engine_of(slots=10)

    async def play():
        sizes = enumerate([40, *range(1, 10)])
        asked = (Sampling(seed=seed, max_tokens=size) for seed, size in sizes)
        await asyncio.wait_for(asyncio.gather(*(engine.generate([1], how) for how in asked)), 60)

    asyncio.run(play())
    assert engine.stats().steps == 40


@pytest.mark.parametrize("answered, seconds", [(64, 0.02), (8, 0.0025), (0, 0.0)])
def test_the_regroup_delay_is_half_of_the_possible_saving(answered, seconds):
    assert scheduler.regroup_delay(answered, 64, 0.04) == pytest.approx(seconds)


# ---- weights -----------------------------------------------------------------------------------


@every_decoder
@pytest.mark.parametrize("from_thread", [False, True])
def test_completions_in_flight_continue_under_new_weights(kind, from_thread):
    """The old weights' tokens are those they write undisturbed, no cache survives, and every token
    is decided by the number that its place in the completion was given."""
    engine, other = engine_of(kind), model_of(kind, seed=1)
    asked = [(words(30, n), Sampling(seed=n, max_tokens=40)) for n in range(3)]
    old = [asyncio.run(engine.generate(*one)) for one in asked]
    assert (old[0].version, old[0].versions, engine.version) == (0, (), 0)

    async def play():
        flying = [asyncio.create_task(engine.generate(*one)) for one in asked]
        before = engine.stats()
        await until(lambda: engine.stats().since(before).generated >= 12)
        before = engine.stats()
        if from_thread:
            await asyncio.to_thread(engine.load, other.state_dict(), 7)
        else:
            engine.load(other.state_dict(), 7)
        return await asyncio.gather(*flying), reused(engine, before)

    sampled, read = asyncio.run(play())
    assert engine.version == 7
    written = [completion.versions.count(0) for completion in sampled]
    assert read == (90 + sum(written), 0)
    for completion, undisturbed, count, (prompt, how) in zip(
        sampled, old, written, asked, strict=True
    ):
        assert completion.version == 0 and 4 <= count < 40
        assert completion.versions == (0,) * count + (7,) * (40 - count)
        assert completion.tokens[:count] == undisturbed.tokens[:count]
        assert completion.logprobs[:count] == pytest.approx(undisturbed.logprobs[:count], abs=1e-4)
        for n, drawn in enumerate(sampling.uniforms(how.seed, 40)[count:], count):
            context = [*prompt, *completion.tokens[:n]]
            with torch.no_grad():
                logits = other(input_ids=torch.tensor([context])).logits[:, -1]
            one = sampling.draw(logits, [how], [drawn])
            assert int(one.tokens) == completion.tokens[n]
            assert float(one.logprobs) == pytest.approx(completion.logprobs[n], abs=1e-4)


@every_decoder
def test_a_weight_update_invalidates_the_cache(kind):
    """Between two turns: neither the conversation's own cache nor a sibling's."""
    engine, other, asked = engine_of(kind), model_of(kind, seed=1), Sampling(max_tokens=3)
    context = words(30, 0)
    sampled = asyncio.run(engine.generate(context, asked))
    engine.load(other.state_dict(), 1)
    before, context = engine.stats(), [*context, *sampled.tokens, *words(4, 1)]
    completion = asyncio.run(engine.generate(context, asked))
    assert reused(engine, before) == (37, 0)
    same([completion], [asyncio.run(LocalEngine(other).generate(context, asked))])


@pytest.mark.parametrize("kind", ["fused", "generic"])
@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_incompatible_weights_change_nothing(kind, fault):
    engine, prompt, asked = engine_of(kind), words(30, 0), Sampling(seed=3, max_tokens=8)
    sampled = asyncio.run(engine.generate(prompt, asked))
    weights = dict(model_of(kind, seed=1).state_dict())
    name = [x for x in weights if x.endswith("norm.weight") or "ln_f" in x][-1]
    if fault == "missing":
        del weights[name]
    else:
        weights[name] = torch.zeros(31)
    with pytest.raises(ConfigError) as error:
        engine.load(weights, 9)
    assert name in str(error.value) and "\n" not in str(error.value)
    again = asyncio.run(engine.generate(prompt, asked))
    same([again], [sampled])
    assert (engine.version, again.version) == (0, 0)


# ---- failures ---------------------------------------------------------------------------


def test_a_cancelled_request_frees_its_slot_and_changes_no_other():
    engine = engine_of(slots=2)
    asked = [(words(20, n), Sampling(seed=n, max_tokens=30)) for n in range(4)]
    alone = [asyncio.run(engine_of().generate(*one)) for one in asked]

    async def play():
        flying = [asyncio.create_task(engine.generate(*one)) for one in asked]
        await until(lambda: engine.stats().generated >= 6)
        flying[0].cancel()  # runs
        flying[3].cancel()  # waits
        sampled = await asyncio.gather(*flying, return_exceptions=True)
        assert [isinstance(x, asyncio.CancelledError) for x in sampled] == [
            True,
            False,
            False,
            True,
        ]
        same(sampled[1:3], alone[1:3])
        # Two slots again: both run, and neither waits for the other to end.
        before = engine.stats()
        same(await asyncio.gather(*(engine.generate(*asked[n]) for n in (0, 3))), alone[::3])
        assert engine.stats().since(before).steps <= 32

    asyncio.run(asyncio.wait_for(play(), 60))


class FailingDecoder:
    """A real decoder of four tokens that always samples the next one, and fails on demand."""

    vocabulary = 4
    broken = False

    def extend(self, rows, starts, tokens, prefixes=()):
        if self.broken:
            torch.empty(2**50)
        last = torch.tensor([new[-1] for new in tokens])
        return torch.nn.functional.one_hot((last + 1) % 4, 4) * 100.0

    def copy(self, source, target, length):
        pass

    def load(self, weights):
        pass


def test_a_failing_model_fails_requests_in_flight_and_serves_later_ones():
    decoder = FailingDecoder()
    scheduler = Scheduler(decoder, 2)

    async def play():
        flying = [scheduler.submit([0], Sampling(max_tokens=100_000)) for _ in range(5)]
        await until(lambda: scheduler.stats.generated >= 4)
        decoder.broken = True
        failed = await asyncio.gather(*flying, return_exceptions=True)
        assert {type(x) for x in failed} == {OutOfMemory} and len(failed) == 5
        assert "2 contexts at once: lower `--rollout.concurrency`" in str(failed[0])
        decoder.broken = False
        sampled = await asyncio.gather(
            *(scheduler.submit([n], Sampling(max_tokens=3)) for n in (1, 2))
        )
        assert [c.tokens for c in sampled] == [(2, 3, 0), (3, 0, 1)]

    asyncio.run(asyncio.wait_for(play(), 60))


@pytest.mark.parametrize("kind", ["fused", "generic"])
def test_an_engine_can_serve_several_event_loops_in_sequence(kind):
    """Also after a loop that was stopped midway, reusing its cache."""
    engine, prompt = engine_of(kind, slots=2), words(30, 0)
    first = asyncio.run(engine.generate(prompt, Sampling(max_tokens=4)))

    async def leave():
        for seed in range(3):
            asyncio.get_running_loop().create_task(
                engine.generate(words(30, 5 + seed), Sampling(max_tokens=50))
            )
        before = engine.stats()
        await until(lambda: engine.stats().since(before).generated >= 4)

    asyncio.run(leave())
    before = engine.stats()
    with asyncio.Runner() as runner:
        same([runner.run(engine.generate(prompt, Sampling(max_tokens=4)))], [first])
    assert engine.stats().since(before).generated == 4


def test_two_running_event_loops_are_rejected():
    engine = engine_of()

    async def play():
        mine = asyncio.create_task(engine.generate(words(30, 0), Sampling(max_tokens=60)))
        await until(lambda: engine.stats().generated >= 2)
        theirs = engine.generate(words(30, 1), Sampling(max_tokens=4))
        with ThreadPoolExecutor(1) as thread, pytest.raises(ConfigError, match="event loop"):
            await asyncio.wrap_future(thread.submit(asyncio.run, theirs))
        assert len((await mine).tokens) == 60

    asyncio.run(play())


def test_the_event_loop_stays_responsive_during_model_calls():
    engine, ticks = engine_of(), 0

    async def play():
        nonlocal ticks
        flying = asyncio.create_task(engine.generate(words(30, 0), Sampling(max_tokens=100)))
        while not flying.done():
            await asyncio.sleep(0)
            ticks += 1

    asyncio.run(play())
    assert ticks > 200


def test_the_local_engine_implements_the_protocol():
    assert isinstance(engine_of(), Engine)
