"""Openings that several contexts have in common are read once, and change nothing but rounding."""

import asyncio
import random

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.auto import AutoModelForCausalLM

from agentgym.engines.local.decode_plan import _CALL, openings, runs
from agentgym.engines.local.decoder import Prefix
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.local.slot_pool import SlotPool
from agentgym.engines.local.slotted import SlottedDecoder
from agentgym.types import Sampling

V, CONTEXT = 61, 1024
SIZES = {"vocab_size": V, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPES = {
    "llama, three queries per key": LlamaConfig(
        **SIZES, hidden_size=48, num_attention_heads=6, num_key_value_heads=2
    ),
    "qwen2, one query per key": Qwen2Config(
        **SIZES, hidden_size=32, num_attention_heads=2, num_key_value_heads=2
    ),
    "qwen3, four queries per key": Qwen3Config(
        **SIZES, hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=16
    ),
}


def model_of(name):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(SHAPES[name]).eval()


def decoder_of(model, dtype=torch.float32, *, batch_invariant=False):
    return SlottedDecoder(
        model.config,
        model.state_dict(),
        context=CONTEXT,
        dtype=dtype,
        device=torch.device("cpu"),
        batch_invariant=batch_invariant,
    )


def family(rng, groups, alone):
    """Slots, prompts and prefixes: groups of (rows, opening), and rows without one."""
    prompts: list[list[int]] = []
    prefixes: list[Prefix | None] = []
    for rows, length in groups:
        opening, prefix = rng.integers(0, V, length).tolist(), Prefix(length)
        for _ in range(rows):
            prompts.append(opening + rng.integers(0, V, rng.integers(1, 60)).tolist())
            prefixes.append(prefix)
    prompts += [rng.integers(0, V, rng.integers(2, 700)).tolist() for _ in range(alone)]
    prefixes += [None] * alone
    # Wide apart and in any order, with idle slots in between.
    slots = rng.permutation(len(prompts) + 6)[: len(prompts)].tolist()
    return slots, prompts, prefixes


@pytest.mark.parametrize("name", SHAPES)
def test_logits_are_those_of_rows_that_share_nothing(name):
    model = model_of(name)
    rng = np.random.default_rng(0)
    slots, prompts, prefixes = family(rng, [(9, 400), (2, 800), (5, 350), (1, 600)], 4)
    shared, plain = decoder_of(model), decoder_of(model)
    for decoder in (shared, plain):
        decoder.extend(slots, [0] * len(slots), prompts)
    lengths = [len(prompt) for prompt in prompts]
    for _ in range(6):
        # Some decode, some read on, some do nothing.
        asked = sorted(rng.permutation(len(slots))[: rng.integers(8, len(slots))].tolist())
        tokens = [rng.integers(0, V, rng.choice([1, 1, 1, 7])).tolist() for _ in asked]
        call = [slots[i] for i in asked], [lengths[i] for i in asked], tokens
        found = shared.extend(*call, [prefixes[i] for i in asked])
        torch.testing.assert_close(found, plain.extend(*call), atol=2e-5, rtol=1e-5)
        for i, new in zip(asked, tokens, strict=True):
            lengths[i] += len(new)


def test_in_bfloat16_the_error_is_that_of_rows_that_share_nothing():
    model = model_of("llama, three queries per key")
    slots, prompts, prefixes = family(np.random.default_rng(1), [(24, 700)], 0)
    exact = decoder_of(model)
    exact.extend(slots, [0] * 24, prompts)
    call = slots, [len(prompt) for prompt in prompts], [[5]] * 24
    expected = exact.extend(*call)
    errors = []
    for known in ((), prefixes):
        decoder = decoder_of(model, torch.bfloat16)
        decoder.extend(slots, [0] * 24, prompts)
        errors.append((decoder.extend(*call, known).float() - expected).norm())
    assert errors[1] < 1.2 * errors[0], errors


@torch.inference_mode()
def damaged(decoder, prefixes, slots, prompts):
    """Logits of a step after the openings of all but the first slot are overwritten."""
    decoder.extend(slots, [0] * len(slots), prompts)
    call = slots, [len(prompt) for prompt in prompts], [[5]] * len(slots)
    before = decoder.extend(*call, prefixes)
    for pair in decoder._cache:
        for part in pair:
            part[sorted(slots)[1:], :, : prefixes[0].length] = 1e3
    return before, decoder.extend(*call, prefixes)


def test_an_opening_is_read_from_one_slot_only_and_never_where_bits_must_not_change():
    model = model_of("qwen3, four queries per key")
    rows = family(np.random.default_rng(2), [(4, 500)], 0)
    slots, prompts, prefixes = rows
    before, after = damaged(decoder_of(model), prefixes, slots, prompts)
    torch.testing.assert_close(before, after)
    before, after = damaged(decoder_of(model, batch_invariant=True), prefixes, slots, prompts)
    assert not before.isclose(after).all()


@pytest.mark.parametrize("seed", range(20))
def test_runs_cover_every_row_and_read_little_in_excess(seed):
    rng = np.random.default_rng(seed)
    slots = np.sort(rng.permutation(80)[: rng.integers(1, 64)])
    lows = rng.choice([0, 0, 300, 310, 900], len(slots))
    highs = lows + rng.integers(1, 200, len(slots))
    found = runs(slots.tolist(), lows.tolist(), highs.tolist())
    assert np.concatenate([np.arange(len(slots))[run] for run in found]).tolist() == list(
        range(len(slots))
    )
    for run in found:
        read = (slots[run][-1] - slots[run][0] + 1) * (highs[run].max() - lows[run].min())
        assert read - (highs - lows)[run].sum() <= _CALL * (run.stop - run.start - 1)
    together = runs(range(64), [500] * 64, [600] * 64)
    assert together == [slice(0, 64)] and runs([], [], []) == []


def test_openings_that_save_less_than_a_call_are_left_alone():
    long, short, lone = Prefix(_CALL + 1), Prefix(100), Prefix(5000)
    found = openings([long, short, None, long, short, lone])
    assert [(each.length, each.members) for each in found] == [(_CALL + 1, [0, 3])]


# ---- who shares what ---------------------------------------------------------------------------


def filled(pool, prompt):
    """Place a prompt, as if it were computed at once."""
    place = pool.place(prompt, displace=True)
    place.slot.tokens, place.slot.cached = list(prompt), len(prompt)
    return place.slot


def test_samples_of_a_task_share_its_prompt_and_tasks_do_not_break_them_up():
    pool = SlotPool(8)
    system = list(range(100))
    first = [filled(pool, [*system, *[7] * 100, i]) for i in range(3)]
    second = [filled(pool, [*system, *[8] * 100, i]) for i in range(3)]
    for slots in (first, second):
        assert len({slot.prefix for slot in slots}) == 1 and slots[0].prefix.length == 200
    assert first[0].prefix is not second[0].prefix
    assert filled(pool, [9] * 300).prefix is None


def test_forks_leave_for_an_opening_that_is_much_longer():
    pool = SlotPool(8)
    parent = filled(pool, [1] * 100 + [2] * 400)
    sibling = filled(pool, [1] * 100 + [3] * 400)
    assert parent.prefix is sibling.prefix and parent.prefix.length == 100
    fork = filled(pool, [1] * 100 + [2] * 400 + [5])
    assert fork.prefix is parent.prefix and fork.prefix.length == 500
    near = filled(pool, [1] * 100 + [2] * 390 + [6] * 20)
    assert near.prefix is None, "500 tokens are more than it has in common with them"


def test_slots_with_the_same_prefix_hold_the_same_tokens():
    """Contexts that grow, fork and end at random, in fewer slots than contexts."""
    rng = random.Random(0)
    pool, running, ended = SlotPool(6), [], [[]]
    together = 0
    for _ in range(3000):
        if running and (len(running) == 6 or rng.random() < 0.4):
            slot = running.pop(rng.randrange(len(running)))
            slot.busy = False
            if rng.random() < 0.5:
                pool.finish(slot.tokens)
            ended = [*ended[-8:], slot.tokens]
            continue
        base = rng.choice(ended)
        start = base[: rng.choice([len(base), len(base), rng.randrange(len(base) + 1)])]
        prompt = start[-400:] if rng.random() < 0.1 else start
        prompt = [*prompt[:600], *(rng.randrange(2) for _ in range(rng.randrange(1, 90)))]
        if (place := pool.place(prompt, displace=True)) is None:
            continue
        place.slot.tokens, place.slot.cached = prompt, len(prompt)
        running.append(place.slot)
        groups = {}
        for slot in running:
            if slot.prefix is not None:
                groups.setdefault(slot.prefix, []).append(tuple(slot.tokens[: slot.prefix.length]))
        for prefix, openings_ in groups.items():
            assert len(set(openings_)) == 1 and len(openings_[0]) == prefix.length
            together += len(openings_) > 1
    assert together > 500


def test_completions_of_an_engine_that_shares_are_those_of_one_that_does_not(monkeypatch):
    model = model_of("llama, three queries per key")
    calls = []
    join = SlottedDecoder._join_opening
    monkeypatch.setattr(
        SlottedDecoder, "_join_opening", lambda *given: (calls.append(1), join(*given))[1]
    )

    async def play(batch_invariant):
        engine = LocalEngine(model, slots=12, context=CONTEXT, batch_invariant=batch_invariant)
        opening = np.random.default_rng(0).integers(0, V, 500).tolist()

        async def one(number):
            context, sampled = [*opening, number], []
            for turn in range(3):
                asked = Sampling(seed=10 * number + turn, max_tokens=3 + (number + turn) % 5)
                sampled.append(await engine.generate(context, asked))
                context = [*context, *sampled[-1].tokens, 1, 2, 3]
            engine.finish(context)
            return sampled

        return await asyncio.gather(*(one(number) for number in range(16)))

    exact = asyncio.run(play(True))
    assert not calls
    for found, expected in zip(asyncio.run(play(False)), exact, strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.tokens == b.tokens
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    assert calls
