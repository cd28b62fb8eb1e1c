"""Adapters: trained alone, saved as PEFT does, added to the weights that engines sample with."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from engine_contract import CONTEXT, TIED, UNTIED, V, ask, assert_agrees, model_of, shaped, words
from peft import LoraConfig, PeftModel
from small_runs import SMALL_RUN
from transformers import GPT2Config
from transformers.models.auto import AutoModelForCausalLM

from agentgym.algorithm import extend
from agentgym.batch.batch import token_mean
from agentgym.credit.transforms import stateless
from agentgym.engines.factory import EngineFactory
from agentgym.engines.local.engine import LocalEngine
from agentgym.engines.vllm.adapters import AdapterFolder
from agentgym.errors import ConfigError
from agentgym.evaluation.record_files import read_episodes
from agentgym.experiment.checkpoints import load_state
from agentgym.experiment.evaluations import evaluate_blocking
from agentgym.experiment.job import Job, run_blocking
from agentgym.experiment.metrics_file import read_metrics
from agentgym.experiment.run_folder import RunFolder, fingerprint
from agentgym.models.loading import check_model, load_model
from agentgym.models.lora import (
    adapter_config,
    add_lora,
    merge_lora,
    trainable_copy,
    without_lora,
)
from agentgym.models.policy import Policy
from agentgym.settings import (
    ImitationSettings,
    LoraSettings,
    OptimizerSettings,
    PanelSettings,
)
from agentgym.utils.progress import Display
from agentgym_trainers.ppo import PPO

LORA = LoraSettings(rank=3, alpha=6)
OLD = GPT2Config(n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, vocab_size=V)
KINDS = {"tied": TIED, "untied": UNTIED, "transposed": OLD}


def nudge(model, seed=0):
    """Adapters with random weights: new ones add nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


@pytest.fixture(params=KINDS)
def pair(request, tmp_path):
    """A model with adapters, and the PEFT model loaded from the same saved folders."""
    model_of(KINDS[request.param]).save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base")
    add_lora(model, LORA, seed=0)
    nudge(model).save_pretrained(tmp_path / "adapters")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    return model, PeftModel.from_pretrained(base, tmp_path / "adapters").eval()


def test_new_adapters_change_nothing_and_are_determined_by_a_seed():
    model = model_of(TIED)
    before = model(input_ids=torch.tensor([words(9, 0)])).logits
    state = torch.get_rng_state()
    add_lora(model, LORA, seed=5)
    assert torch.get_rng_state().equal(state)
    assert model(input_ids=torch.tensor([words(9, 0)])).logits.equal(before)
    again = model_of(TIED)
    add_lora(again, LORA, seed=5)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(model.get_parameter(n).equal(again.get_parameter(n)) for n in names)
    # Query, key, value, output, gate, up and down of two layers, two matrices each.
    assert len(names) == 7 * 2 * 2 and all("lora_" in name for name in names)


def test_the_engine_samples_with_what_peft_computes(pair, tmp_path):
    model, theirs = pair
    engine = LocalEngine(model, slots=2, context=CONTEXT)
    prompt = words(20, 1)
    assert_agrees(theirs, prompt, ask(engine, prompt, max_tokens=12))
    nudge(model, seed=1).save_pretrained(tmp_path / "adapters")
    theirs.load_adapter(tmp_path / "adapters", "newer")
    theirs.set_adapter("newer")
    engine.load(Policy(model).weights(), 1)
    assert_agrees(theirs, prompt, ask(engine, prompt, max_tokens=12))


def test_a_loaded_folder_gives_the_saved_outputs_and_trains_further(pair, tmp_path):
    model, theirs = pair
    again = load_model(tmp_path / "adapters")
    ids = torch.tensor([words(30, 2)])
    expected = theirs(input_ids=ids).logits
    assert torch.allclose(again(input_ids=ids).logits, expected, atol=1e-5)
    assert torch.allclose(merge_lora(again)(input_ids=ids).logits, expected, atol=1e-5)
    trained = [[n for n, p in m.named_parameters() if p.requires_grad] for m in (model, again)]
    assert trained[0] == trained[1]
    files = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files


def test_a_merged_model_shares_all_other_weights_and_does_not_change_the_model(pair):
    model, _ = pair
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = merge_lora(model)
    assert merge_lora(whole) is whole
    shared = whole.get_input_embeddings().weight
    assert shared.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    plain = type(model)(model.config).state_dict()
    assert {k: v.shape for k, v in whole.state_dict().items()} == {
        k: v.shape for k, v in plain.items()
    }


def test_a_trainable_copy_has_its_own_adapters_on_shared_weights(pair):
    model, _ = pair
    own = dict(trainable_copy(model).named_parameters())
    for name, parameter in model.named_parameters():
        assert (own[name] is not parameter) == parameter.requires_grad


def test_the_adapters_alone_are_what_peft_loads(pair, tmp_path):
    model, theirs = pair
    policy = Policy(nudge(model, seed=2))
    weights = policy.weights(adapters=True)
    assert all("lora_" in name for name in weights)
    size = sum(weight.nbytes for weight in weights.values()) / 1e6
    assert policy.megabytes(adapters=True) == pytest.approx(size)
    assert policy.megabytes(adapters=True) < policy.megabytes()
    folder = AdapterFolder(adapter_config(model))
    for _ in range(3):
        folder.write(weights)
    assert folder.rank == 8 > LORA.rank
    assert len(list(folder.path.parent.iterdir())) == 2  # The last one may still be read.
    theirs.load_adapter(folder.path, "alone")
    theirs.set_adapter("alone")
    ids = torch.tensor([words(20, 3)])
    assert torch.allclose(model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-5)
    folder.close()
    assert not folder.path.parent.exists()


def test_the_model_under_the_adapters_is_the_base(pair, tmp_path):
    model, _ = pair
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    ids = torch.tensor([words(20, 3)])
    bare = without_lora(model)
    assert torch.allclose(bare(input_ids=ids).logits, base(input_ids=ids).logits, atol=1e-6)
    assert not torch.allclose(model(input_ids=ids).logits, bare(input_ids=ids).logits, atol=1e-3)


def test_a_rank_that_vllm_does_not_support_is_refused(pair):
    config = {**adapter_config(pair[0]), "r": 600}
    with pytest.raises(ConfigError, match="--lora.sync merged".replace(".", "[.]")):
        AdapterFolder(config)


def test_adapters_are_float32_on_a_bfloat16_base():
    model = model_of(UNTIED).bfloat16()
    add_lora(model, LORA, seed=0)
    kinds = {p.requires_grad: p.dtype for p in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert {w.dtype for w in merge_lora(nudge(model)).state_dict().values()} == {torch.bfloat16}


# ---- a run -------------------------------------------------------------------------------------

ADAPTED = replace(
    SMALL_RUN,
    steps=4,
    save_every=2,
    lora=LoraSettings(rank=2, alpha=8),
    imitation=ImitationSettings(max_steps=10, demos_per_task=1, until_success=1.0),
    optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=0),
    rollout=replace(SMALL_RUN.rollout, max_turns=4),
    panel=PanelSettings(tasks=2, episodes=2),
)


def algorithm():
    """With a critic and a reference, and with token credit, so that credit is never zero."""

    def tilt(batch):
        return batch.with_(
            advantage=(batch.tokens % 5 - 2.0) * batch.mask, weight=token_mean(batch.mask)
        )

    host = PPO(group_size=4, minibatches=1, kl_coef=0.01)
    return extend(host.build(), credit=stateless(tilt))


def adapters(where):
    from safetensors.torch import load_file

    return load_file(where / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    run_blocking(ADAPTED, algorithm(), folder, Display())
    return folder


def test_a_run_trains_adapters_on_the_warm_model(finished):
    assert (finished.warm / "model.safetensors").exists()
    assert not (finished.final / "model.safetensors").exists()
    named = json.loads((finished.final / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(finished.warm.resolve())
    first, last = adapters(finished.step(2)), adapters(finished.final)
    assert first.keys() == last.keys()
    assert any(not first[name].equal(last[name]) for name in first)
    assert all(row["policy/logprob_gap_max"] < 1e-4 for row in read_metrics(finished.metrics))
    assert any(row["update/grad_norm"] > 0 for row in read_metrics(finished.metrics))


def test_a_checkpoint_holds_no_frozen_weights(finished):
    state = load_state(finished.step(2))["learner"]
    assert state["critic"].keys() - state["reference"].keys() == {"lm_head.weight"}
    assert state["reference"] and all("lora_" in name for name in state["reference"])


def test_an_interrupted_run_ends_with_the_same_adapters(finished, tmp_path):
    cut = RunFolder(tmp_path / "cut")
    shutil.copytree(finished.root, cut.root)
    shutil.rmtree(cut.final)
    cut.evaluation("after").unlink()
    run_blocking(ADAPTED, algorithm(), cut, Display())
    first, second = adapters(finished.final), adapters(cut.final)
    assert all(first[name].equal(second[name]) for name in first)


def test_a_folder_of_adapters_is_evaluated_as_it_was_in_its_run(finished, tmp_path):
    alone = replace(ADAPTED, model=str(finished.final), lora=LoraSettings())
    evaluate_blocking(alone, tmp_path / "alone.jsonl", Display())
    played = [
        sorted((e.task, e.sample, [t.text for t in e.turns]) for e in read_episodes(path))
        for path in (tmp_path / "alone.jsonl", finished.evaluation("after"))
    ]
    assert played[0] == played[1]


def test_vllm_gets_a_merged_model_for_a_folder_of_adapters(finished):
    job = Job(ADAPTED, finished, Display(), engines=EngineFactory("vllm"))
    assert job.loaded(finished.warm)[1] == finished.warm
    assert type(job.loaded(finished.final)[1]).__name__ == "Qwen2ForCausalLM"


@pytest.mark.parametrize("imitates", [True, False])
def test_adapters_of_a_given_model_are_trained_on_it_and_imitate_if_asked(
    finished, tmp_path, imitates
):
    """The warm checkpoint is adapters, too: the given model is neither changed nor copied."""
    folder = RunFolder(tmp_path)
    before = fingerprint(finished.warm)
    shown = replace(ADAPTED.imitation, pretrained=imitates)
    given = replace(ADAPTED, model=str(finished.warm), imitation=shown, steps=1)
    run_blocking(given, algorithm(), folder, Display())
    assert fingerprint(finished.warm) == before
    for where in (folder.warm, folder.final):
        named = json.loads((where / "adapter_config.json").read_text())
        assert named["base_model_name_or_path"] == str(finished.warm.resolve())
    first, last = adapters(folder.warm), adapters(folder.final)
    moved = max(float(first[name].abs().max()) for name in first if "lora_B" in name)
    assert (moved > 0) is imitates
    assert any(not first[name].equal(last[name]) for name in first)


def test_the_fingerprint_covers_adapters_and_base(finished, tmp_path):
    moved = tmp_path / "base"
    shutil.copytree(finished.warm, moved)
    shutil.copytree(finished.final, tmp_path / "adapters")
    found = [fingerprint(tmp_path / "adapters")]
    for change in (str(moved), "somebody/else"):
        path = tmp_path / "adapters" / "adapter_config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": change})
        )
        found.append(fingerprint(tmp_path / "adapters"))
    assert found[0] == found[1] != found[2]


def test_a_run_folder_can_be_moved_and_continued(finished, tmp_path):
    moved = RunFolder(tmp_path / "elsewhere" / "run")
    shutil.copytree(finished.root, moved.root)
    hidden = finished.root.rename(finished.root.with_name("hidden"))
    try:
        assert fingerprint(moved.final) == fingerprint_where(moved)
        load_model(moved.final)
        shutil.rmtree(moved.final)
        run_blocking(ADAPTED, algorithm(), moved, Display())
    finally:
        hidden.rename(finished.root)
    first, second = adapters(finished.final), adapters(moved.final)
    assert all(first[name].equal(second[name]) for name in first)
    named = json.loads((moved.final / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == str(moved.warm.resolve())


def fingerprint_where(folder):
    """The location of adapters and base does not change their fingerprint."""
    file = folder.final / "adapter_config.json"
    there = json.loads(file.read_text()) | {"base_model_name_or_path": str(folder.warm)}
    other = folder.root.parent / "named" / "final"
    shutil.copytree(folder.final, other)
    (other / "adapter_config.json").write_text(json.dumps(there))
    return fingerprint(other)


# ---- what is refused ---------------------------------------------------------------------------


def refused(call):
    with pytest.raises(ConfigError) as problem:
        call()
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_unknown_target_modules_are_refused():
    wanted = replace(LORA, target_modules=("elbow",))
    assert "lora.target_modules: Target modules" in refused(
        lambda: add_lora(model_of(TIED), wanted, seed=0)
    )


def test_adapters_that_would_untie_weights_are_refused():
    model = model_of(TIED)
    add_lora(model, replace(LORA, target_modules=("lm_head",)), seed=0)
    assert "leave both out of `lora.target_modules`" in refused(lambda: merge_lora(model))


def test_adapters_of_another_size_than_configured_are_refused(pair):
    text = refused(lambda: add_lora(pair[0], replace(LORA, rank=5), seed=0))
    assert "has adapters of rank 3 and alpha 6, got lora.rank 5" in text


def test_a_missing_or_different_base_is_refused(pair, tmp_path):
    _ = pair
    other = replace_config(tmp_path / "adapters", str(tmp_path / "nothing"))
    assert f"{str(tmp_path / 'nothing')!r}, which {other!r} names" in refused(
        lambda: load_model(other)
    )
    assert "names as its base" in refused(lambda: check_model(other))
    model_of(type(TIED)(**shaped(hidden_size=48, num_hidden_layers=3))).save_pretrained(
        tmp_path / "large"
    )
    other = replace_config(tmp_path / "adapters", str(tmp_path / "large"))
    assert "do not fit their base" in refused(lambda: load_model(other))


def replace_config(folder, base):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    return str(folder)


def test_adapters_other_than_plain_lora_are_refused(tmp_path):
    model = model_of(TIED)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    model.save_pretrained(tmp_path)
    assert "expected plain LoRA" in refused(lambda: load_model(tmp_path))
