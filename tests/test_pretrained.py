"""A real instruct model, SmolLM2-135M-Instruct; runs where ``scripts/pretrained`` has been run."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_chat_templates import conversation

from agentgym.algorithm import extend
from agentgym.batch.batch import token_mean
from agentgym.batch.collate import collate
from agentgym.cli import main
from agentgym.credit.transforms import stateless
from agentgym.engines.local.engine import LocalEngine
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.job import run_blocking
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder
from agentgym.models.loading import check_model, load_model, load_tokenizer
from agentgym.models.policy import Policy
from agentgym.rollout.agent import ChatAgent
from agentgym.settings import (
    Experiment,
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    PanelSettings,
    RolloutSettings,
)
from agentgym.training.learner import Learner
from agentgym.types import Sampling, Stop, Task, Trajectory, Turn
from agentgym.utils.progress import Display
from agentgym_trainers.grpo import GRPO

pytestmark = [pytest.mark.pretrained, pytest.mark.timeout(1200)]

SMALL = Experiment(
    env="agentgym/Hotter-v0",
    env_args={"high": 8},
    steps=2,
    tasks_per_step=1,
    save_every=1,
    rollout=RolloutSettings(max_turns=2, max_context_tokens=512, max_completion_tokens=12),
    imitation=ImitationSettings(max_steps=0),
    panel=PanelSettings(tasks=1, episodes=1),
)


def algorithm():
    """GRPO with an advantage that depends on the token, so that there is always a gradient."""

    def tilt(batch):
        advantage = (batch.tokens % 5 - 2.0) * batch.mask
        return batch.with_(advantage=advantage, weight=token_mean(batch.mask))

    return extend(GRPO(group_size=2, minibatches=1).build(), credit=stateless(tilt))


def question(tokenizer):
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)
    return list(rendered["input_ids"])


def test_the_model_answers_a_question(pretrained):
    check_model(pretrained, context=8192)
    tokenizer, model = load_tokenizer(pretrained), load_model(pretrained)
    prompt = question(tokenizer)
    with torch.no_grad():
        written = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)  # type: ignore[attr-defined]
    assert "Paris" in tokenizer.decode(written[0, len(prompt) :])


@pytest.mark.parametrize(
    ("precision", "most", "mean"), [("float32", 1e-4, 1e-5), ("bfloat16", 0.5, 0.05)]
)
def test_engine_and_trainer_agree_on_log_probabilities(pretrained, precision, most, mean):
    """In float32 only rounding differs; a trainer in bfloat16 rounds 30 layers to 8 bits."""
    model = load_model(pretrained, dtype=torch.float32)
    tokenizer = load_tokenizer(pretrained)
    engine = LocalEngine(model, slots=1, context=256)
    prompt = question(tokenizer)
    completion = asyncio.run(engine.generate(prompt, Sampling(max_tokens=48)))
    turn = Turn(tuple(prompt), completion, "", "", 0.0)
    batch = collate([[Trajectory(Task("", ""), 0, "", "", (turn,), Stop.TERMINATED)]])
    seen = Learner(Policy(model), OptimizerSettings(precision=precision)).observe(batch)
    gap = (seen.logprob - seen.logprob_sampled)[seen.mask].abs()
    assert gap.max() < most and gap.mean() < mean
    assert precision == "float32" or gap.max() > 0


def test_an_evaluation_runs_the_whole_panel(pretrained, tmp_path):
    out = tmp_path / "panel.jsonl"
    words = "--env hotter --panel.tasks 1 --panel.episodes 2 --rollout.max-turns 2"
    length = ["--rollout.max-completion-tokens", "16", "--out", str(out)]
    assert main(["eval", str(pretrained), *words.split(), *length]) == 0
    assert len(list(read_episodes(out))) == 2


def test_adapters_train_and_a_resumed_run_gives_the_same_adapters(pretrained, tmp_path):
    experiment = replace(
        SMALL,
        model=str(pretrained),
        lora=LoraSettings(rank=4),
        imitation=ImitationSettings(
            pretrained=True, max_steps=2, batch_size=2, demos_per_task=1, until_success=1.0
        ),
        # In bfloat16 the engine is not batch-invariant, so a resumed run may differ by rounding.
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0, precision="float32"),
    )
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    run_blocking(experiment, algorithm(), whole, Display())
    shutil.copytree(whole.root, cut.root)
    shutil.rmtree(cut.final)
    cut.evaluation("after").unlink()
    run_blocking(experiment, algorithm(), cut, Display())
    first, warm, again = (
        load_file(where / "adapter_model.safetensors")
        for where in (whole.final, whole.warm, cut.final)
    )
    assert all(first[name].equal(again[name]) for name in first)
    assert any(not first[name].equal(warm[name]) for name in first)


def test_full_training_updates_all_weights_in_float32(pretrained, tmp_path):
    experiment = replace(
        SMALL,
        model=str(pretrained),
        steps=1,
        optimizer=OptimizerSettings(learning_rate=1e-6, warmup_steps=0),
    )
    folder = RunFolder(tmp_path)
    run_blocking(experiment, algorithm(), folder, Display())
    before, after = (
        load_file(where / "model.safetensors") for where in (folder.warm, folder.final)
    )
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    moved = torch.cat([(after[name] - before[name]).flatten().abs() for name in after])
    assert 0.9e-6 < moved.max() < 1.1e-6
    [metrics] = read_metrics(folder.metrics)
    assert metrics["policy/mismatch"] < 0.1 and metrics["update/grad_norm"] > 0


@pytest.mark.parametrize("history", ["append", "rerender"])
def test_a_growing_context_equals_the_template_rendering_token_by_token(pretrained, history):
    agent = ChatAgent(load_tokenizer(pretrained), history=history)
    for context, rendering in conversation(agent, "text"):
        assert tuple(context) == agent.template.encode(rendering)
