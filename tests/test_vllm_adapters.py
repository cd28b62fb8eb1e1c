"""Adapters in vLLM: merged by agentgym, or reloaded by vLLM; run by scripts/test-vllm."""

import pytest

pytest.importorskip("vllm", reason="scripts/test-vllm installs it")

import torch
from engine_contract import TIED, ask, assert_agrees, model_of, words

from agentgym.engines.factory import EngineFactory
from agentgym.engines.vllm.answers import parse_completion
from agentgym.engines.vllm.arguments import sampling_params
from agentgym.engines.vllm.start import start_engine
from agentgym.models import from_scratch
from agentgym.models.loading import load_model
from agentgym.models.lora import add_lora, merge_lora
from agentgym.models.policy import Policy
from agentgym.settings import LoraSettings
from agentgym.types import Sampling

# Warnings of vLLM and its dependencies.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

PROMPT = words(70, 1)
"""Longer than two blocks of the prefix cache, which must not outlive the adapters."""


@pytest.fixture
def model(tmp_path):
    model_of(TIED).save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base")
    add_lora(model, LoraSettings(rank=8, alpha=16), seed=0)
    return nudge(model, 0)


def nudge(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.05
    return model


def test_vllm_samples_with_merged_adapters(model):
    tokenizer = from_scratch.make_tokenizer((), from_scratch.MIN_VOCABULARY)
    engines = EngineFactory("vllm")
    try:
        engine = engines.make(model, tokenizer, slots=4, context=160)
        assert_agrees(model, PROMPT, ask(engine, PROMPT, max_tokens=12))
        engine.load(Policy(nudge(model, 1)).weights(), 1)
        assert_agrees(model, PROMPT, ask(engine, PROMPT, max_tokens=12))
    finally:
        engines.close()


@pytest.mark.parametrize("kind", ["vllm", "vllm-server"])
def test_vllm_is_sent_the_adapters_alone(model, kind):
    tokenizer = from_scratch.make_tokenizer((), from_scratch.MIN_VOCABULARY)
    engines = EngineFactory(kind, sync_adapters=True)
    try:
        engine = engines.make(model, tokenizer, slots=4, context=160)
        assert engine.takes_adapters
        assert_agrees(model, PROMPT, ask(engine, PROMPT, max_tokens=12))
        for version in (1, 2, 3):
            policy = Policy(nudge(model, version))
            weights = policy.weights(adapters=True)
            assert policy.megabytes(adapters=True) < 0.5 * policy.megabytes()
            engine.load(weights, version)
            completion = ask(engine, PROMPT, max_tokens=12)
            assert completion.version == version
            assert_agrees(model, PROMPT, completion)
    finally:
        engines.close()


def test_a_checkpoint_that_vllm_reloads_equals_merged_weights(model, tmp_path):
    """``load_inplace``: the same name, new adapters, while the server runs."""
    from vllm import TokensPrompt
    from vllm.lora.request import LoRARequest

    engine, _ = start_engine(
        {
            "model": str(tmp_path / "base"),
            "max_num_seqs": 4,
            "max_model_len": 160,
            "dtype": "float32",
            "enable_lora": True,
            "max_lora_rank": 8,
        }
    )
    sampling = Sampling(max_tokens=12, seed=3)
    try:
        for version in range(3):
            nudge(model, version).save_pretrained(tmp_path / "adapters")
            request = LoRARequest("policy", 1, str(tmp_path / "adapters"), load_inplace=True)
            assert engine.reset_prefix_cache()
            prompt = TokensPrompt(prompt_token_ids=PROMPT)
            engine.add_request(
                str(version), prompt, sampling_params(sampling, 1), lora_request=request
            )
            answers = []
            while not answers:
                answers = engine.step()
            found = answers[0].outputs[0]
            rows = [[entry.logprob for entry in step.values()] for step in found.logprobs]
            completion = parse_completion(found.token_ids, rows, sampling, version)
            assert_agrees(merge_lora(model), PROMPT, completion)
            assert_agrees(model, PROMPT, completion)
    finally:
        engine.engine_core.shutdown()
