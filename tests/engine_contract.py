"""What every engine that training may use must do; ``RULES`` is run on each of them.

A rule is a function of a ``Subject``; it leaves the engine with the weights it found.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2Config
from transformers.models.auto import AutoModelForCausalLM

from agentgym.engines import Engine
from agentgym.errors import ConfigError
from agentgym.types import Completion, Sampling

V = 50
CONTEXT = 160


def shaped(**changes):
    """Two layers, four heads that share two key/value heads."""
    common = {
        "vocab_size": V,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": CONTEXT,
    }
    return {**common, **changes}


# Heads of 32, the smallest that vLLM's attention on a CPU computes.
WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
TIED = Qwen2Config(**shaped(tie_word_embeddings=True, **WIDE))
UNTIED = Qwen2Config(**shaped(tie_word_embeddings=False, **WIDE))


def model_of(config, seed=0):
    """A model with an opinion: fresh weights are so small that any error would hide."""
    model = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 9.6 / config.hidden_size
            one = parameter.dim() == 1 and "norm" in name and "bias" not in name
            parameter.copy_(1 + noise if one else noise)
    return model


@dataclass
class Subject:
    """An engine and the model whose weights it holds."""

    engine: Any
    model: Any


def words(count, seed):
    return np.random.default_rng(seed).integers(0, V, count).tolist()


def judge(model, prompt, tokens):
    """[tokens, V] log-probabilities of a plain forward pass over the whole text, in nats."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


def agrees(model, prompt, completion):
    """A completion's numbers are those of the model's plain forward pass."""
    expected = judge(model, prompt, completion.tokens)
    picked = expected.gather(-1, torch.tensor(completion.tokens)[:, None])[:, 0]
    entropy = -(expected.exp() * expected).sum(-1)
    np.testing.assert_allclose(completion.logprobs, picked, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(completion.entropies, entropy, atol=5e-5)


def by_hand(logits, *, temperature=1.0, top_k=0, top_p=1.0):
    """Probabilities, one token at a time in plain Python."""
    if temperature == 0:
        return [float(i == logits.index(max(logits))) for i in range(len(logits))]
    weight = [math.exp(x / temperature) for x in logits]
    ranked = sorted(range(len(logits)), key=lambda i: (-weight[i], i))
    ranked = ranked[: top_k or None]
    total = sum(weight[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if top_p < 1.0 and mass >= top_p * total:
            break
        kept.append(i)
        mass += weight[i]
    return [weight[i] / mass if i in kept else 0.0 for i in range(len(logits))]


async def talk(engine, seed, turns, *, length=11):
    """A growing conversation; each turn's prompt and completion."""
    context = words(length + seed % 5, seed)
    told = []
    for turn in range(turns):
        completion = await engine.generate(context, Sampling(seed=97 * seed + turn, max_tokens=6))
        told.append((tuple(context), completion))
        context = [*context, *completion.tokens, *words(3 + turn % 3, 1000 * seed + turn)]
    engine.finish(context)
    return told


def together(engine, seeds, turns=4):
    """Conversations at the same time, on an event loop of their own."""

    async def all_of_them():
        return await asyncio.gather(*(talk(engine, seed, turns) for seed in seeds))

    return asyncio.run(all_of_them())


def model_calls(engine, *, turns, length):
    """Of an engine that keeps counters, in four episodes that ask again 10 ms after one another."""

    async def play(number):
        context = words(10, number)
        for turn in range(turns):
            await asyncio.sleep(0.01 * number if turn else 0)
            said = await engine.generate(context, Sampling(seed=number, max_tokens=length))
            context = [*context, *said.tokens, *words(3, turn)]

    async def everyone():
        await asyncio.gather(*map(play, range(4)))

    before = engine.stats()
    asyncio.run(asyncio.wait_for(everyone(), 60))
    return engine.stats().since(before).steps


def ask(engine, prompt, **params):
    """One completion."""
    return asyncio.run(engine.generate(prompt, Sampling(**params)))


def same(one, other):
    """Equal tokens, and numbers equal up to rounding."""
    assert one.tokens == other.tokens
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=2e-5)
    np.testing.assert_allclose(one.entropies, other.entropies, atol=5e-5)


# ---- numbers -----------------------------------------------------------------------------------


def numbers_are_those_of_a_plain_forward_pass(subject):
    """Over conversations of several turns, with rows of all lengths in one batch."""
    assert isinstance(subject.engine, Engine)
    for told in together(subject.engine, range(5)):
        for prompt, completion in told:
            assert len(completion.tokens) == 6
            assert completion.version == subject.engine.version
            agrees(subject.model, prompt, completion)


WAYS = [
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 4},
    {"top_k": 400},
    {"top_p": 0.6},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 3, "top_p": 0.5},
]


def numbers_are_those_of_the_distribution_sampled_from(subject):
    """With temperature, top-k and top-p applied, all ways in one batch."""

    async def every_way():
        asked = (Sampling(seed=3, max_tokens=5, **way) for way in WAYS)
        return await asyncio.gather(*(subject.engine.generate(prompt, one) for one in asked))

    prompt = words(20, 4)
    for way, completion in zip(WAYS, asyncio.run(every_way()), strict=True):
        rows = judge(subject.model, prompt, completion.tokens).tolist()
        for row, *told in zip(
            rows, completion.tokens, completion.logprobs, completion.entropies, strict=True
        ):
            p = by_hand(row, **way)
            entropy = -sum(x * math.log(x) for x in p if x)
            np.testing.assert_allclose(told[1:], [math.log(p[told[0]]), entropy], atol=5e-5)


def tokens_come_as_often_as_is_reported(subject):
    """Completions of one prompt, each its own seed, under cuts; five standard errors."""
    count, prompt = 1000, words(20, 4)
    way = {"temperature": 1.3, "top_k": 6, "top_p": 0.9}

    async def many():
        asked = (Sampling(seed=seed, max_tokens=1, **way) for seed in range(count))
        return await asyncio.gather(*(subject.engine.generate(prompt, one) for one in asked))

    completions = asyncio.run(many())
    p = np.array(by_hand(judge(subject.model, prompt, [0])[0].tolist(), **way))
    seen = np.bincount([c.tokens[0] for c in completions], minlength=V) / count
    assert (np.abs(seen - p) <= 5 * np.sqrt(p * (1 - p) / count)).all() and (p > 0).sum() > 2


def a_greedy_completion_is_the_likeliest_and_certain(subject):
    completion = ask(subject.engine, words(20, 4), temperature=0.0, max_tokens=8)
    expected = judge(subject.model, words(20, 4), completion.tokens).argmax(-1)
    assert completion.tokens == tuple(expected.tolist())
    assert completion.logprobs == completion.entropies == (0.0,) * 8


def a_seed_decides_whatever_else_is_in_flight(subject):
    prompt = words(20, 5)
    alone = [ask(subject.engine, prompt, seed=seed, max_tokens=8) for seed in range(4)]

    async def crowd():
        asked = [Sampling(seed=seed, max_tokens=8) for seed in range(4)]
        noise = [subject.engine.generate(words(9 + n, n), Sampling(seed=n)) for n in range(9)]
        wanted = [subject.engine.generate(prompt, one) for one in asked]
        return (await asyncio.gather(*noise, *wanted))[9:]

    for one, other in zip(alone, asyncio.run(crowd()), strict=True):
        same(one, other)
    assert len({completion.tokens for completion in alone}) > 1


def a_stop_token_ends_a_completion_and_is_part_of_it(subject):
    def say(stop):
        return ask(subject.engine, words(9, 0), seed=5, max_tokens=20, stop=stop).tokens

    whole = say(())
    assert len(whole) == 20
    ended = {
        stop: ask(subject.engine, words(9, 0), seed=5, max_tokens=20, stop=stop).finish
        for stop in ((), (whole[7],))
    }
    assert ended == {(): "length", (whole[7],): "stop"}
    first = whole.index(whole[7])
    assert say((whole[7],)) == whole[: first + 1]
    assert say((whole[19], whole[7])) == whole[: min(first, whole.index(whole[19])) + 1]


def a_context_filled_to_the_last_token_is_served(subject):
    prompt = words(CONTEXT - 8, 0)
    agrees(subject.model, prompt, ask(subject.engine, prompt, max_tokens=8))


# ---- what is refused ---------------------------------------------------------------------------

REFUSED = [
    ([], {}, "a prompt must have 1 to 96 tokens, got 0"),
    ([1] * 97, {}, "a prompt must have 1 to 96 tokens, got 97"),
    ([1] * 96, {"max_tokens": 65}, "got 96: the engine's context is 160"),
    ([1, V], {}, "token ids must be in"),
    ([-1], {}, "token ids must be in"),
    ([1], {"temperature": -1.0}, "temperature"),
    ([1], {"temperature": math.nan}, "temperature"),
    ([1], {"top_p": 0.0}, "top_p"),
    ([1], {"top_p": 1.1}, "top_p"),
    ([1], {"top_k": -1}, "top_k"),
    ([1], {"max_tokens": 0}, "max_tokens"),
    ([1], {"seed": -1}, "seed"),
]


def a_request_that_cannot_be_served_is_refused_in_one_line(subject):
    for prompt, params, expected in REFUSED:
        with pytest.raises(ConfigError) as error:
            ask(subject.engine, prompt, **params)
        assert expected in str(error.value) and "\n" not in str(error.value)


def weights_that_do_not_fit_are_refused_whole(subject):
    said = ask(subject.engine, words(30, 0), seed=3, max_tokens=8)
    name = "model.norm.weight"
    other = dict(model_of(subject.model.config, seed=1).state_dict())
    for weights in ({**other, name: torch.zeros(31)}, other):
        if weights is other:
            del other[name]
        with pytest.raises(ConfigError) as error:
            subject.engine.load(weights, 9)
        assert name in str(error.value) and "\n" not in str(error.value)
    again = ask(subject.engine, words(30, 0), seed=3, max_tokens=8)
    same(again, said)
    assert again.version == subject.engine.version == said.version


# ---- weights -----------------------------------------------------------------------------------


def new_weights_replace_the_old_ones_between_turns(subject):
    """No cache outlives its weights, and what follows is of the new version."""
    engine, other = subject.engine, model_of(subject.model.config, seed=1)
    context = words(70, 0)
    said = ask(engine, context, max_tokens=3)
    context = [*context, *said.tokens, *words(4, 1)]
    try:
        for version in (5, 6):
            other = model_of(subject.model.config, seed=version)
            engine.load(other.state_dict(), version)
            completion = ask(engine, context, max_tokens=6)
            assert completion.version == engine.version == version
            agrees(other, context, completion)
    finally:
        engine.load(subject.model.state_dict(), 0)
    agrees(subject.model, context, ask(engine, context, max_tokens=6))


def new_weights_in_mid_flight_go_on_with_every_completion(subject):
    """What was written stays, the rest is written by the new weights, and each token says which."""
    engine, other = subject.engine, model_of(subject.model.config, seed=1)

    async def play():
        asked = [(words(30, n), Sampling(seed=n, max_tokens=120)) for n in range(7)]
        flying = [asyncio.create_task(engine.generate(*one)) for one in asked]
        first = asyncio.create_task(engine.generate(words(30, 0), Sampling(max_tokens=5)))
        await first  # The others are under way.
        assert not any(task.done() for task in flying)
        await asyncio.to_thread(engine.load, other.state_dict(), 7)
        return await asyncio.gather(*flying)

    try:
        for number, completion in enumerate(asyncio.run(play())):
            assert len(completion.tokens) == 120 and completion.version == 0
            assert completion.versions == tuple(sorted(completion.versions))
            assert set(completion.versions) == {0, 7}
            old, new = (of_version(completion, version) for version in (0, 7))
            agrees(subject.model, words(30, number), old)
            agrees(other, [*words(30, number), *old.tokens], new)
            assert new.tokens[: len(old.tokens)] != old.tokens[: len(new.tokens)]
    finally:
        engine.load(subject.model.state_dict(), 0)


def of_version(completion, version):
    """The tokens of it that one version of the weights sampled."""
    at = [n for n, one in enumerate(completion.token_versions) if one == version]
    columns = completion.tokens, completion.logprobs, completion.entropies
    return Completion(*(tuple(column[n] for n in at) for column in columns), version)


def a_model_gone_wrong_is_an_error_and_not_a_token(subject):
    """Weights that training has blown up."""
    good = subject.model.state_dict()
    bad = {key: torch.full_like(value, math.nan) for key, value in good.items()}
    try:
        subject.engine.load(bad, 1)
        for _ in range(2):
            with pytest.raises(ConfigError, match="not finite") as error:
                together(subject.engine, [0, 1], turns=1)
            assert "\n" not in str(error.value)
        with pytest.raises(ConfigError, match="not finite"):
            ask(subject.engine, words(9, 0), temperature=0.0, max_tokens=3)
    finally:
        subject.engine.load(good, 0)
    for told in together(subject.engine, range(4), turns=3):
        for prompt, completion in told:
            agrees(subject.model, prompt, completion)


def who_rests_answers_all_the_same(subject):
    """And what it held before is not taken for what it holds."""
    context = words(70, 0)
    said = ask(subject.engine, context, max_tokens=3)
    subject.engine.rest()
    context = [*context, *said.tokens, *words(4, 1)]
    agrees(subject.model, context, ask(subject.engine, context, max_tokens=6))


# ---- who asks ----------------------------------------------------------------------------------


def a_withdrawn_request_disturbs_nobody(subject):
    async def play():
        asked = [(words(20, n), Sampling(seed=n, max_tokens=60)) for n in range(6)]
        flying = [asyncio.create_task(subject.engine.generate(*one)) for one in asked]
        await subject.engine.generate(words(5, 0), Sampling(max_tokens=2))
        flying[1].cancel()
        flying[4].cancel()
        return await asyncio.gather(*flying, return_exceptions=True)

    found = asyncio.run(play())
    assert [isinstance(one, asyncio.CancelledError) for one in found] == [
        n in (1, 4) for n in range(6)
    ]
    for number in (0, 2, 3, 5):
        agrees(subject.model, words(20, number), found[number])


RULES = [
    numbers_are_those_of_a_plain_forward_pass,
    numbers_are_those_of_the_distribution_sampled_from,
    tokens_come_as_often_as_is_reported,
    a_greedy_completion_is_the_likeliest_and_certain,
    a_seed_decides_whatever_else_is_in_flight,
    a_stop_token_ends_a_completion_and_is_part_of_it,
    a_context_filled_to_the_last_token_is_served,
    a_request_that_cannot_be_served_is_refused_in_one_line,
    weights_that_do_not_fit_are_refused_whole,
    new_weights_replace_the_old_ones_between_turns,
    new_weights_in_mid_flight_go_on_with_every_completion,
    a_model_gone_wrong_is_an_error_and_not_a_token,
    a_withdrawn_request_disturbs_nobody,
    who_rests_answers_all_the_same,
]

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
