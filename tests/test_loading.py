"""Models that cannot be loaded are refused in one line, before anything is written."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from engine_contract import UNTIED, model_of
from transformers import LlamaConfig, LlamaForCausalLM

from agentgym.cli import main
from agentgym.errors import ConfigError, MissingExtra
from agentgym.models import from_scratch, gguf
from agentgym.models.loading import check_model, load_model
from agentgym.models.lora import add_lora
from agentgym.settings import LoraSettings


def refused(path):
    with pytest.raises(ConfigError) as problem:
        check_model(path)
    assert "\n" not in str(problem.value)
    return str(problem.value)


def saved(folder, tokenizer, **shape):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), **{**small, **heads, **shape})
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_missing_folder_is_named_as_one(tmp_path):
    for path in ("runs/none/checkpoints/final", "./none", str(tmp_path / "none")):
        assert refused(path).endswith("(there is no such folder or file)")


def test_a_model_without_a_chat_template_is_refused(tokenizer, tmp_path):
    folder = saved(tmp_path, tokenizer)
    check_model(folder)
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template, as base models have none" in refused(folder)


def test_a_context_longer_than_the_model_supports_is_refused(tokenizer, tmp_path):
    folder = saved(tmp_path, tokenizer, max_position_embeddings=512)
    check_model(folder, context=512)
    with pytest.raises(ConfigError, match="max_context_tokens is 513, expected at most 512"):
        check_model(folder, context=513)


def test_a_gguf_file_of_an_unsupported_architecture_is_refused(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "odd.gguf", "unheard-of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "architecture unheard-of is not supported" in refused(tmp_path / "odd.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model"])
def test_a_damaged_gguf_file_is_refused(content, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(content)
    assert "broken.gguf" in refused(tmp_path / "broken.gguf")
    assert "missing.gguf" in refused(tmp_path / "missing.gguf")


def test_a_gguf_file_without_the_package_that_reads_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'agentic-gym\[gguf\]'"):
        load_model(tmp_path / "model.gguf")


@pytest.mark.parametrize("shape", [{"hidden_size": 64}, {"num_hidden_layers": 1}])
def test_adapters_of_another_base_are_found_by_their_shapes(tokenizer, tmp_path, shape):
    base = saved(tmp_path / "base", tokenizer)
    model = load_model(base, device="cpu")
    add_lora(model, LoraSettings(rank=2), seed=0)
    model.save_pretrained(tmp_path / "adapters")
    check_model(tmp_path / "adapters")
    other = saved(tmp_path / "other", tokenizer, **shape)
    config = tmp_path / "adapters" / "adapter_config.json"
    named = json.loads(config.read_text()) | {"base_model_name_or_path": str(other)}
    config.write_text(json.dumps(named))
    text = refused(tmp_path / "adapters")
    assert f"do not fit their base {str(other)!r}" in text


def test_the_dtype_of_the_weights_can_be_chosen(tmp_path):
    model_of(UNTIED).save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        model = load_model(tmp_path, device="cpu", dtype=dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
    assert load_model(tmp_path, device="cpu").dtype == torch.float32  # type: ignore[attr-defined]


def test_a_context_shorter_than_the_manual_is_refused_before_anything_is_written(
    tokenizer, tmp_path, monkeypatch, capsys
):
    made = copy.deepcopy(tokenizer)
    made.chat_template = from_scratch.DIALOGUE
    folder = saved(tmp_path / "model", made, max_position_embeddings=4096)
    monkeypatch.chdir(tmp_path)
    lengths = ["--rollout.max-context-tokens", "200", "--rollout.max-completion-tokens", "150"]
    for verb in (["eval", str(folder)], ["train", "grpo", "--model", str(folder)]):
        assert main([*verb, "--env", "hotter", *lengths]) == 2
        shown = capsys.readouterr().err
        [line] = [each for each in shown.splitlines() if each.startswith("agentgym:")]
        assert "exceed the context of 200: raise `--rollout.max-context-tokens`" in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
