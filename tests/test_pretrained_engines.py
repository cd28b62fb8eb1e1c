"""Precision of engines with a real model; runs where ``scripts/pretrained`` has been run."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from agentgym.batch.collate import collate
from agentgym.engines.factory import EngineFactory
from agentgym.engines.local.engine import LocalEngine
from agentgym.models.loading import load_model, load_tokenizer
from agentgym.models.policy import Policy
from agentgym.models.precision import multiplies_bfloat16
from agentgym.settings import OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.types import Sampling, Stop, Task, Trajectory, Turn

pytestmark = pytest.mark.pretrained


def played(engine, tokenizer, episodes=4, turns=3):
    """Episodes of several turns in one batch, with sampled completions."""

    def encoded(text):
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    async def play(number):
        context, turns_played = [], []
        for turn in range(turns):
            words = f"Name {turn + number + 2} animals that live near a river. " * (1 + number % 3)
            prompt = encoded(f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n")
            context += prompt
            how = Sampling(seed=10 * number + turn, max_tokens=12)
            completion = await engine.generate(context, how)
            context += completion.tokens
            turns_played.append(Turn(prompt, completion, "", "", 0.0, turn == 0))
        engine.finish(context)
        return Trajectory(Task("", ""), number, "", "", tuple(turns_played), Stop.TERMINATED)

    async def everyone():
        return await asyncio.gather(*map(play, range(episodes)))

    return asyncio.run(everyone())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("precision", "largest", "mean"), [("float32", 1e-4, 1e-5), ("bfloat16", 0.5, 0.05)]
)
def test_log_probabilities_of_engine_and_trainer_agree(pretrained, precision, largest, mean):
    """In nats, over all sampled tokens; bfloat16 has eight bits of precision."""
    tokenizer, model = load_tokenizer(pretrained), load_model(pretrained)
    engine = EngineFactory(precision=precision).make(model, tokenizer, slots=4, context=512)
    batch = collate([played(engine, tokenizer)])
    learner = Learner(Policy(model), OptimizerSettings(precision=precision))
    seen = learner.observe(batch).logprob[batch.mask]
    gap = (seen - batch.logprob_sampled[batch.mask]).abs()
    assert len(gap) == 4 * 3 * 12
    assert float(gap.max()) < largest and float(gap.mean()) < mean


@pytest.mark.timeout(600)
def test_bfloat16_and_float32_sampling_nearly_agree(pretrained):
    """Log-probabilities of the tokens that bfloat16 sampled, by a float32 forward pass."""
    tokenizer, model = load_tokenizer(pretrained), load_model(pretrained)
    engine = LocalEngine(model, slots=4, context=512, dtype=torch.bfloat16)
    gaps = []
    for trajectory in played(engine, tokenizer):
        text = [t for turn in trajectory.turns for t in (*turn.prompt, *turn.completion.tokens)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([text])).logits[0].double().log_softmax(-1)
        at = 0
        for turn in trajectory.turns:
            at += len(turn.prompt)
            for token, logprob in zip(
                turn.completion.tokens, turn.completion.logprobs, strict=True
            ):
                gaps.append(abs(float(logits[at - 1, token]) - logprob))
                at += 1
    assert np.mean(gaps) < 0.05 and max(gaps) < 0.6


def test_a_pretrained_model_is_sampled_in_bfloat16_on_supporting_hardware(pretrained):
    engine = EngineFactory().make(load_model(pretrained), None, slots=2, context=64)
    expected = torch.bfloat16 if multiplies_bfloat16(torch.device("cpu")) else torch.float32
    assert engine._decoder._dtype == expected  # type: ignore[attr-defined]
