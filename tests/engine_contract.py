"""What every engine for training must do; ``RULES`` runs on each of them.

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
from agentgym.engines.weight_stream import BrokenStream, WeightStream
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
    """A model with large weights: fresh weights are so small that any error would hide."""
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
    """An engine and the model with the same weights."""

    engine: Any
    model: Any


def words(count, seed):
    return np.random.default_rng(seed).integers(0, V, count).tolist()


def reference_logprobs(model, prompt, tokens):
    """[tokens, V] log-probabilities of a plain forward pass over the whole text, in nats."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
    return logits[len(prompt) - 1 : -1].double().log_softmax(-1)


def assert_agrees(model, prompt, completion):
    """A completion's numbers are those of the model's plain forward pass."""
    expected = reference_logprobs(model, prompt, completion.tokens)
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
    found = []
    for turn in range(turns):
        completion = await engine.generate(context, Sampling(seed=97 * seed + turn, max_tokens=6))
        found.append((tuple(context), completion))
        context = [*context, *completion.tokens, *words(3 + turn % 3, 1000 * seed + turn)]
    engine.finish(context)
    return found


def together(engine, seeds, turns=4):
    """Conversations at the same time, on an event loop of their own."""

    async def all_of_them():
        return await asyncio.gather(*(talk(engine, seed, turns) for seed in seeds))

    return asyncio.run(all_of_them())


def model_calls(engine, *, turns, length):
    """Counted model calls in four episodes that send their requests 10 ms apart."""

    async def play(number):
        context = words(10, number)
        for turn in range(turns):
            await asyncio.sleep(0.01 * number if turn else 0)
            sampled = await engine.generate(context, Sampling(seed=number, max_tokens=length))
            context = [*context, *sampled.tokens, *words(3, turn)]

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


def log_probabilities_and_entropies_equal_a_plain_forward_pass(subject):
    """Over conversations of several turns, with rows of all lengths in one batch."""
    assert isinstance(subject.engine, Engine)
    for found in together(subject.engine, range(5)):
        for prompt, completion in found:
            assert len(completion.tokens) == 6
            assert completion.version == subject.engine.version  # type: ignore[attr-defined]
            assert_agrees(subject.model, prompt, completion)


WAYS = [
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"top_k": 4},
    {"top_k": 400},
    {"top_p": 0.6},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 3, "top_p": 0.5},
]


def log_probabilities_are_of_the_distribution_sampled_from(subject):
    """With temperature, top-k and top-p applied, all ways in one batch."""

    async def every_way():
        asked = (Sampling(seed=3, max_tokens=5, **way) for way in WAYS)
        return await asyncio.gather(*(subject.engine.generate(prompt, one) for one in asked))

    prompt = words(20, 4)
    for way, completion in zip(WAYS, asyncio.run(every_way()), strict=True):
        rows = reference_logprobs(subject.model, prompt, completion.tokens).tolist()
        for row, *found in zip(
            rows, completion.tokens, completion.logprobs, completion.entropies, strict=True
        ):
            p = by_hand(row, **way)
            entropy = -sum(x * math.log(x) for x in p if x)
            np.testing.assert_allclose(found[1:], [math.log(p[found[0]]), entropy], atol=5e-5)


def sampling_frequencies_match_the_reported_probabilities(subject):
    """Completions of one prompt with different seeds, top-k and top-p; five standard errors."""
    count, prompt = 1000, words(20, 4)
    way = {"temperature": 1.3, "top_k": 6, "top_p": 0.9}

    async def many():
        asked = (Sampling(seed=seed, max_tokens=1, **way) for seed in range(count))
        return await asyncio.gather(*(subject.engine.generate(prompt, one) for one in asked))

    completions = asyncio.run(many())
    p = np.array(by_hand(reference_logprobs(subject.model, prompt, [0])[0].tolist(), **way))
    seen = np.bincount([c.tokens[0] for c in completions], minlength=V) / count
    assert (np.abs(seen - p) <= 5 * np.sqrt(p * (1 - p) / count)).all() and (p > 0).sum() > 2


def a_greedy_completion_is_the_argmax_with_log_probability_zero(subject):
    completion = ask(subject.engine, words(20, 4), temperature=0.0, max_tokens=8)
    expected = reference_logprobs(subject.model, words(20, 4), completion.tokens).argmax(-1)
    assert completion.tokens == tuple(expected.tolist())
    assert completion.logprobs == completion.entropies == (0.0,) * 8


def a_seed_fixes_a_completion_in_any_batch(subject):
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
    assert_agrees(subject.model, prompt, ask(subject.engine, prompt, max_tokens=8))


# ---- rejected input ---------------------------------------------------------------------------

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


def an_invalid_request_is_rejected_in_one_line(subject):
    for prompt, params, expected in REFUSED:
        with pytest.raises(ConfigError) as error:
            ask(subject.engine, prompt, **params)
        assert expected in str(error.value) and "\n" not in str(error.value)


def weights_that_do_not_fit_change_nothing(subject):
    sampled = ask(subject.engine, words(30, 0), seed=3, max_tokens=8)
    name = "model.norm.weight"
    other = dict(model_of(subject.model.config, seed=1).state_dict())
    for weights in ({**other, name: torch.zeros(31)}, other):
        if weights is other:
            del other[name]
        with pytest.raises(ConfigError) as error:
            subject.engine.load(weights, 9)
        assert name in str(error.value) and "\n" not in str(error.value)
    again = ask(subject.engine, words(30, 0), seed=3, max_tokens=8)
    same(again, sampled)
    assert again.version == subject.engine.version == sampled.version


# ---- weights -----------------------------------------------------------------------------------


def new_weights_take_effect_between_turns(subject):
    """Caches are dropped with their weights, and later completions have the new version."""
    engine, other = subject.engine, model_of(subject.model.config, seed=1)
    context = words(70, 0)
    sampled = ask(engine, context, max_tokens=3)
    context = [*context, *sampled.tokens, *words(4, 1)]
    try:
        for version in (5, 6):
            other = model_of(subject.model.config, seed=version)
            engine.load(other.state_dict(), version)
            completion = ask(engine, context, max_tokens=6)
            assert completion.version == engine.version == version
            assert_agrees(other, context, completion)
    finally:
        engine.load(subject.model.state_dict(), 0)
    assert_agrees(subject.model, context, ask(engine, context, max_tokens=6))


class Crowd:
    """Requests without a pause, so that some are always in flight; ``found`` has what came."""

    def __init__(self, engine, size=7):
        self.found = []
        self._engine, self._leaving = engine, False
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(size)]

    async def _ask(self, number):
        while not self._leaving:
            sampling = Sampling(seed=len(self.found), max_tokens=120)
            self.found.append((number, await self._engine.generate(words(30, number), sampling)))

    async def leave(self):
        self._leaving = True
        await asyncio.gather(*self._tasks)


def completions_in_flight_continue_under_new_weights(subject):
    """Sampled tokens are kept, new weights sample the rest, and each token has its version."""
    engine = subject.engine
    models = [subject.model, model_of(subject.model.config, seed=1)]

    def crosses(completion):
        return len(set(completion.token_versions)) > 1

    async def play():
        crowd = Crowd(engine)
        for version in range(1, 200):
            await asyncio.to_thread(engine.load, models[version % 2].state_dict(), version)
            if any(crosses(completion) for _, completion in crowd.found):
                break
            await asyncio.sleep(0.05)
        await crowd.leave()
        return crowd.found

    try:
        found = asyncio.run(play())
        assert any(crosses(completion) for _, completion in found)
        for number, completion in found:
            versions, prompt = completion.token_versions, words(30, number)
            assert len(completion.tokens) == 120 and completion.version == versions[0]
            assert versions == tuple(sorted(versions))
            before = ()
            for version in sorted(set(versions)):
                part = of_version(completion, version)
                assert_agrees(models[version % 2], prompt, part)
                prompt = [*prompt, *part.tokens]
                # The draws of a seed go on; a few tokens may be the same by chance.
                shared = min(len(before), len(part.tokens))
                assert shared < 5 or part.tokens[:shared] != before[:shared]
                before = part.tokens
    finally:
        engine.load(subject.model.state_dict(), 0)


def of_version(completion, version):
    """The tokens of a completion that one version of the weights sampled."""
    at = [n for n, one in enumerate(completion.token_versions) if one == version]
    columns = completion.tokens, completion.logprobs, completion.entropies
    return Completion(*(tuple(column[n] for n in at) for column in columns), version)  # type: ignore[call-arg]


def weights_that_stop_arriving_are_never_sampled_from(subject):
    """The engine keeps the old ones, or its requests wait for the next ones."""
    engine, other = subject.engine, model_of(subject.model.config, seed=1)
    weights = list(other.state_dict().items())

    def some():
        yield from weights[: len(weights) // 2]
        raise BrokenStream("the trainer has died")

    async def play():
        asked = [(words(30, n), Sampling(seed=n, max_tokens=120)) for n in range(3)]
        flying = [asyncio.create_task(engine.generate(*one)) for one in asked]
        await engine.generate(words(30, 0), Sampling(max_tokens=5))
        broken = WeightStream({name: weight.shape for name, weight in weights}, some())
        with pytest.raises(BrokenStream, match="has died"):
            await asyncio.to_thread(engine.load_stream, broken, 7)
        late = asyncio.create_task(engine.generate(words(30, 3), Sampling(seed=3, max_tokens=6)))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(engine.load, other.state_dict(), 8)
        return await asyncio.gather(*flying, late)

    try:
        for number, completion in enumerate(asyncio.run(play())):
            old, new = (of_version(completion, version) for version in (0, 8))
            assert len(old.tokens) + len(new.tokens) == len(completion.tokens)
            if old.tokens:
                assert_agrees(subject.model, words(30, number), old)
            if new.tokens:
                assert_agrees(other, [*words(30, number), *old.tokens], new)
        assert engine.version == 8
    finally:
        engine.load(subject.model.state_dict(), 0)


def diverged_weights_raise_an_error(subject):
    """After training has diverged."""
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
    for found in together(subject.engine, range(4), turns=3):
        for prompt, completion in found:
            assert_agrees(subject.model, prompt, completion)


def a_sleeping_engine_still_serves_requests(subject):
    """And does not use the freed cache."""
    context = words(70, 0)
    sampled = ask(subject.engine, context, max_tokens=3)
    subject.engine.sleep()
    context = [*context, *sampled.tokens, *words(4, 1)]
    assert_agrees(subject.model, context, ask(subject.engine, context, max_tokens=6))


# ---- requests ----------------------------------------------------------------------------------


def a_cancelled_request_changes_no_other(subject):
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
        assert_agrees(subject.model, words(20, number), found[number])


RULES = [
    log_probabilities_and_entropies_equal_a_plain_forward_pass,
    log_probabilities_are_of_the_distribution_sampled_from,
    sampling_frequencies_match_the_reported_probabilities,
    a_greedy_completion_is_the_argmax_with_log_probability_zero,
    a_seed_fixes_a_completion_in_any_batch,
    a_stop_token_ends_a_completion_and_is_part_of_it,
    a_context_filled_to_the_last_token_is_served,
    an_invalid_request_is_rejected_in_one_line,
    weights_that_do_not_fit_change_nothing,
    new_weights_take_effect_between_turns,
    completions_in_flight_continue_under_new_weights,
    weights_that_stop_arriving_are_never_sampled_from,
    diverged_weights_raise_an_error,
    a_cancelled_request_changes_no_other,
    a_sleeping_engine_still_serves_requests,
]

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
