"""vLLM in this process; run by scripts/test-vllm."""

import asyncio

import pytest

pytest.importorskip("vllm", reason="scripts/test-vllm installs it")

from engine_contract import (
    TIED,
    UNTIED,
    Subject,
    ask,
    assert_agrees,
    every_rule,
    model_calls,
    model_of,
    words,
)

from agentgym.engines.vllm import thread
from agentgym.engines.vllm.engine import VLLMEngine
from agentgym.errors import ConfigError, EngineError
from agentgym.experiment.job import run_blocking
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.settings import (
    Experiment,
    ImitationSettings,
    OptimizerSettings,
    PanelSettings,
    RolloutSettings,
    ScratchSettings,
)
from agentgym.types import Sampling
from agentgym.utils.progress import Display
from agentgym_trainers.epo import EPO
from agentgym_trainers.grpo import GRPO

# Warnings of vLLM and its dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=[TIED, UNTIED], ids=["tied", "untied"])
def subject(request, tmp_path_factory):
    model = model_of(request.param)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    engine = VLLMEngine(str(folder), slots=8, context=1000)  # The limit of the model applies.
    yield Subject(engine, model)
    engine.close()


@every_rule
def test_the_engine_satisfies_the_contract(rule, subject):
    rule(subject)


def test_entropies_are_exact(subject):
    assert subject.engine.exact_entropies


def test_the_prefix_cache_serves_past_turns_until_weights_change(subject):
    """Whole blocks of 32 tokens: two of the 70 prompt tokens."""
    engine = subject.engine

    def reused(context):
        before = engine.stats()
        sampled = ask(engine, context, max_tokens=4)
        return [*context, *sampled.tokens], engine.stats().since(before).cached_tokens

    context, _ = reused(words(70, 9))
    context, found = reused([*context, *words(5, 1)])
    assert found == 64
    engine.load(subject.model.state_dict(), 0)
    assert reused(context)[1] == 0


def test_follow_up_requests_join_the_next_model_call(subject, monkeypatch):
    """The first call may include fewer than all four requests: they start while it runs."""
    monkeypatch.setattr(thread, "regroup_delay", lambda *_: 5.0)
    assert 6 * 5 <= model_calls(subject.engine, turns=6, length=5) <= 6 * 5 + 3


def test_prompts_longer_than_one_model_call_are_completed(tmp_path):
    """Eight prompts of 100 tokens with a limit of 200: none is split, each has its own seed."""
    model = model_of(TIED)
    model.save_pretrained(tmp_path)
    engine = VLLMEngine(str(tmp_path), slots=8, context=160, max_num_batched_tokens=200)

    async def all_of_them():
        asked = [(words(100, k), Sampling(seed=k, max_tokens=4)) for k in range(8)]
        found = await asyncio.gather(*(engine.generate(*one) for one in asked))
        return [prompt for prompt, _ in asked], found

    for prompt, completion in zip(*asyncio.run(all_of_them()), strict=True):
        assert_agrees(model, prompt, completion)
    engine.close()


def test_training_runs_on_its_completions(tmp_path):
    """Log-probabilities of every step agree with the trainer's current, changing weights."""
    plan = Experiment(
        env="agentgym/Hotter-v0",
        env_args={"high": 8},
        engine="vllm",
        steps=3,
        tasks_per_step=2,
        imitation=ImitationSettings(max_steps=10, demos_per_task=1),
        optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=0),
        scratch=ScratchSettings(
            hidden_size=64,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            intermediate_size=64,
            vocab_size=400,
        ),
        rollout=RolloutSettings(max_turns=4, max_context_tokens=256, max_completion_tokens=8),
        panel=PanelSettings(tasks=2, episodes=2),
    )
    folder = RunFolder(tmp_path / "run")
    # Entropy gives a gradient even without a successful episode.
    method = EPO(base=GRPO(group_size=2), entropy_coef=1.0)
    result = run_blocking(plan, method.build(), folder, Display())
    steps = read_metrics(folder.metrics)
    assert len(steps) == 3
    assert all(step["policy/logprob_gap_max"] < 2e-5 for step in steps)
    assert steps[-1]["policy/entropy_sampled"] > steps[0]["policy/entropy_sampled"] + 1e-3
    assert fingerprint(folder.final) != fingerprint(folder.warm)
    assert result.after.episodes == 2


def test_an_engine_with_failed_requests_accepts_new_weights(tmp_path, monkeypatch):
    """vLLM still holds those requests; new ones keep raising the error."""
    model = model_of(TIED)
    model.save_pretrained(tmp_path)
    engine = VLLMEngine(str(tmp_path), slots=2, context=100)

    def broken():
        raise RuntimeError("out of order")

    monkeypatch.setattr(engine._thread._engine, "step", broken)
    for _ in range(2):
        with pytest.raises(EngineError, match="out of order"):
            ask(engine, words(5, 0), max_tokens=4)
        engine.load(model.state_dict(), 1)
    engine.close()


def test_a_closed_engine_reports_it(tmp_path):
    model_of(TIED).save_pretrained(tmp_path)
    engine = VLLMEngine(str(tmp_path), context=64)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        ask(engine, [1], max_tokens=1)


def test_a_temperature_that_vllm_would_replace_is_rejected(subject):
    with pytest.raises(ConfigError, match=r"temperature 0 or 0\.01 to 2, got 0\.001"):
        ask(subject.engine, [1], temperature=0.001)
