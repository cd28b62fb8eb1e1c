"""A real instruct model, SmolLM2-135M-Instruct: these run where ``scripts/pretrained`` has been."""

from __future__ import annotations

import pytest
import torch

from agentgym.models.loading import check_model, load_model, load_tokenizer

pytestmark = pytest.mark.pretrained


def test_the_model_answers_a_question(pretrained):
    check_model(pretrained)
    tokenizer, model = load_tokenizer(pretrained), load_model(pretrained)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True)
    tokens = torch.tensor([prompt["input_ids"]])
    with torch.no_grad():
        written = model.generate(tokens, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, tokens.shape[1] :])
