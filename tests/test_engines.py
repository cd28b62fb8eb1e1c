"""The local engine agrees with the model: log-probabilities, entropies, samples."""

import asyncio
import math

import numpy as np
import pytest
import torch
from engine_contract import (
    CONTEXT,
    TIED,
    UNTIED,
    Subject,
    V,
    assert_agrees,
    by_hand,
    every_rule,
    model_of,
    shaped,
    together,
    words,
)
from transformers import (
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from agentgym.engines.factory import EngineFactory
from agentgym.engines.local import batch_invariance, cuda_graphs, sampling
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.local.hf_decoder import HFDecoder
from agentgym.engines.local.slotted import SlottedDecoder
from agentgym.errors import ConfigError
from agentgym.types import Sampling

SCALED = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
FUSED = {
    "qwen2": Qwen2Config(**shaped(tie_word_embeddings=True)),
    "qwen2, untied": Qwen2Config(**shaped(tie_word_embeddings=False)),
    "qwen2, one group": Qwen2Config(**shaped(num_key_value_heads=1)),
    "qwen3": Qwen3Config(**shaped(tie_word_embeddings=True, head_dim=16)),
    "qwen3, untied": Qwen3Config(**shaped(tie_word_embeddings=False, head_dim=8)),
    "llama": LlamaConfig(**shaped(tie_word_embeddings=True)),
    "llama, untied, no groups": LlamaConfig(
        **shaped(tie_word_embeddings=False, num_key_value_heads=4)
    ),
    "llama, biased": LlamaConfig(**shaped(attention_bias=True, rope_theta=500.0)),
}
GENERIC = {
    "gpt2": GPT2Config(vocab_size=V, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4),
    "llama, scaled positions": LlamaConfig(**shaped(rope_parameters=SCALED)),
    "qwen2, partly sliding": Qwen2Config(
        **shaped(
            use_sliding_window=True,
            sliding_window=8,
            layer_types=["full_attention", "sliding_attention"],
        )
    ),
    "mistral, sliding": MistralConfig(**shaped(sliding_window=8)),
    "mamba, recurrent": MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2),
}


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
@every_rule
def test_the_contract(rule, config):
    model = model_of(config)
    # The model's own limit of CONTEXT binds.
    rule(Subject(LocalEngine(model, slots=8, context=1000), model))


@every_rule
def test_the_contract_without_batch_invariance(rule):
    model = model_of(TIED)
    engines = EngineFactory(batch_invariant=False)
    engine = engines.make(model, None, slots=8, context=1000)
    assert (
        engine._decoder._padding  # type: ignore[attr-defined]
        == batch_invariance.FAST_ON_CPU
        != LocalEngine(model)._decoder._padding  # type: ignore[attr-defined]
    )
    rule(Subject(engine, model))


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FUSED, *GENERIC])
def test_log_probabilities_and_entropies_are_those_of_a_plain_forward_pass(name):
    """Over conversations of several turns, with rows of all lengths in one batch."""
    model = model_of({**FUSED, **GENERIC}[name])
    engine = LocalEngine(model, slots=4, context=CONTEXT)
    kind = SlottedDecoder if name in FUSED else HFDecoder
    assert type(engine._decoder) is kind
    for found in together(engine, range(5 if name in FUSED else 3)):
        for prompt, completion in found:
            assert len(completion.tokens) == 6
            assert_agrees(model, prompt, completion)


@pytest.mark.parametrize("name", ["qwen3", "llama, untied, no groups"])
def test_the_layout_of_the_gpu_decoder_gives_the_same_logits(name, monkeypatch):
    """Without a graph, which tests/test_gpu.py has; rows of one new token and of several."""

    def capture(step, memory, device):
        made.append(step)
        return step

    made = []
    monkeypatch.setattr(batch_invariance, "padding_for", lambda *sizes: batch_invariance.NO_PADDING)
    monkeypatch.setattr(cuda_graphs, "capture", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    model = model_of(FUSED[name])
    here = {"context": CONTEXT, "dtype": torch.float32, "device": torch.device("cpu")}
    plain = SlottedDecoder(model.config, model.state_dict(), **here)
    fast = cuda_graphs.GraphedDecoder(model.config, model.state_dict(), slots=9, **here)
    rng = np.random.default_rng(0)
    held = np.zeros(9, int)
    for _ in range(50):
        rows = rng.permutation(9)[: rng.integers(1, 8)].tolist()
        counts = np.where(rng.random(len(rows)) < 0.6, 1, rng.integers(2, 40, len(rows)))
        held[rows] = np.where(held[rows] + counts > CONTEXT, 5, held[rows])
        tokens = [rng.integers(0, V, count).tolist() for count in counts]
        asked = rows, held[rows].tolist(), tokens
        held[rows] += counts
        torch.testing.assert_close(fast.extend(*asked), plain.extend(*asked), atol=2e-5, rtol=1e-5)
    assert held.max() > 128 and 3 <= len(made) <= 5, made


def test_a_trainer_may_change_its_model_while_the_engine_samples():
    for config in (FUSED["qwen2"], GENERIC["gpt2"]):
        model, kept = model_of(config), model_of(config)
        engine = LocalEngine(model, context=CONTEXT)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        [[(prompt, completion)]] = together(engine, [1], turns=1)
        assert_agrees(kept, prompt, completion)


def test_an_engine_loads_a_saved_model(tmp_path):
    model = model_of(FUSED["qwen3"])
    model.save_pretrained(tmp_path)
    engine = LocalEngine.from_pretrained(str(tmp_path), context=CONTEXT)
    [[(prompt, completion)]] = together(engine, [3], turns=1)
    assert_agrees(model, prompt, completion)


@pytest.mark.parametrize("name", FUSED)
def test_bfloat16_is_near_and_adopts_new_weights(name):
    """Packed matrices must follow a weight update; the bound is that of eight bits."""
    model, other = model_of(FUSED[name]), model_of(FUSED[name], seed=1)
    engine = LocalEngine(model, slots=4, context=CONTEXT, dtype=torch.bfloat16)
    for version, wanted in enumerate((model, other)):
        engine.load(wanted.state_dict(), version)
        exact = LocalEngine(wanted, slots=4, context=CONTEXT)
        rows, tokens = [0, 1], [words(20, 1), words(7, 2)]
        found, expected = (e._decoder.extend(rows, [0, 0], tokens).float() for e in (engine, exact))
        assert (found - expected).norm() < 0.05 * expected.norm()


# ---- the distribution sampled from -------------------------------------------------------------


WAYS = [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 400},
    {"top_p": 0.6},
    {"top_p": 1e-9},
    {"top_p": 0.999999},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 3, "top_p": 0.5},
]


def test_temperature_top_k_and_top_p_are_applied_row_by_row_in_this_order():
    logits = np.random.default_rng(0).normal(0, 2, (len(WAYS), 9)).tolist()
    found = sampling.distribution(torch.tensor(logits), [Sampling(**way) for way in WAYS]).exp()
    expected = [by_hand(row, **way) for row, way in zip(logits, WAYS, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_top_k_and_top_p_break_ties_by_token_id():
    params = [Sampling(top_k=2), Sampling(top_p=0.3), Sampling(temperature=0.0)]
    found = sampling.distribution(torch.zeros(3, 4), params).exp()
    np.testing.assert_allclose(found, [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_sampling_frequencies_match_the_probabilities(way):
    """20,000 draws: every frequency within five standard errors, and no token that was cut."""
    logits = np.random.default_rng(1).normal(0, 1.5, 8)
    n, params = 20_000, Sampling(**way)
    uniform = [sampling.uniforms(seed, 1)[0] for seed in range(n)]
    drawn = sampling.draw(torch.tensor(np.tile(logits, (n, 1))).float(), [params] * n, uniform)
    p = np.array(by_hand(logits.tolist(), **way))
    seen = np.bincount(drawn.tokens, minlength=8) / n
    assert (np.abs(seen - p) <= 5 * np.sqrt(p * (1 - p) / n)).all()
    np.testing.assert_allclose(drawn.logprobs, np.log(p[drawn.tokens]), atol=1e-5)
    entropy = -sum(x * math.log(x) for x in p if x)
    np.testing.assert_allclose(drawn.entropies, entropy, atol=1e-5)


def test_sampling_inverts_the_cumulative_distribution():
    logits = torch.tensor([[0.2, 0.3, 1e-30, 0.5]]).log().expand(6, 4)
    drawn = sampling.draw(logits, [Sampling()] * 6, [0.0, 0.19, 0.21, 0.49, 0.51, 1 - 2**-53])
    assert drawn.tokens.tolist() == [0, 0, 1, 1, 3, 3]


def test_unlikely_tokens_of_a_large_vocabulary_can_be_sampled():
    """Half of the probability, then 2**17 tokens of 4e-12 each: a float32 sum does not grow."""
    size = 2**17
    logits = torch.full((3, size + 1), -25.0)
    logits[:, 0] = 0.0
    wanted = [1, size // 2, size]
    p = torch.log_softmax(logits[0], -1).exp().double()
    total = p.cumsum(0)
    uniform = [float((total[i] - p[i] / 2) / total[-1]) for i in wanted]
    drawn = sampling.draw(logits, [Sampling()] * 3, uniform)
    assert drawn.tokens.tolist() == wanted


def test_random_numbers_are_uniform_and_a_shorter_list_is_a_prefix():
    assert sampling.uniforms(7, 5) == sampling.uniforms(7, 9)[:5]
    assert sampling.uniforms(7, 5) != sampling.uniforms(8, 5)
    drawn = np.array([sampling.uniforms(seed, 4) for seed in range(5000)])
    assert abs(drawn.mean() - 0.5) < 0.01 and drawn.min() >= 0 and drawn.max() < 1
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.06


# ---- rejected input ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"slots": 0}, {"context": 1}])
def test_invalid_slots_and_context_are_rejected(options):
    with pytest.raises(ConfigError, match="slots must be >= 1 and context >= 2"):
        LocalEngine(model_of(FUSED["qwen2"]), **options)


async def two(engine):
    prompts = words(60, 0), words(60, 1)
    await asyncio.gather(*(engine.generate(prompt, Sampling()) for prompt in prompts))


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_diverged_weights_raise_an_error(name):
    """After training has diverged."""
    model = model_of({**FUSED, **GENERIC}[name])
    good = model.state_dict()
    engine = LocalEngine(model, context=CONTEXT)
    engine.load({key: torch.full_like(value, math.nan) for key, value in good.items()}, 1)
    for _ in range(2):
        with pytest.raises(ConfigError, match="not finite") as error:
            asyncio.run(two(engine))
    assert "\n" not in str(error.value)
    engine.load(good, 2)
    # Rows of different lengths, so that attention masks positions that held NaN.
    for found in together(engine, range(4), turns=3):
        for prompt, completion in found:
            assert_agrees(model, prompt, completion)
