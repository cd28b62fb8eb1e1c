"""Precision of weights and computation, and settings that save memory."""

import pytest
import torch
from engine_contract import TIED, UNTIED, model_of
from test_lm_head import BATCH, LOSS, SMALL
from transformers import GPT2Config, MambaConfig

from agentgym.algorithm import CriticPlan, Update
from agentgym.batch.batch import VALUE
from agentgym.errors import ConfigError, OutOfMemory
from agentgym.losses.compose import add
from agentgym.losses.surrogates import value_error
from agentgym.models import tree_attention
from agentgym.models.loading import load_model
from agentgym.models.lora import add_lora
from agentgym.models.policy import Policy
from agentgym.models.precision import compute_dtype
from agentgym.settings import LoraSettings, OptimizerSettings
from agentgym.training.learner import Learner

UPDATE = Update(loss=LOSS)
DROPPING = GPT2Config(**SMALL, resid_pdrop=0.5, attn_pdrop=0.5)


def gradients(learner, update=UPDATE):
    """Gradients of all trained weights, by name."""
    learner.gradient(BATCH, update, 0)
    networks = [learner.policy] + ([learner.critic.network] if learner.critic else [])
    named = [pair for network in networks for pair in network.model.named_parameters()]
    return {f"{i}{n}": p.grad for i, (n, p) in enumerate(named) if p.grad is not None}


def learners(config, settings, *, lora=None):
    """Two learners with the same weights: one with the settings, one with the defaults."""
    made = []
    for one in (settings, OptimizerSettings()):
        model = model_of(config)
        if lora is not None:
            add_lora(model, lora, seed=0)
        made.append(Learner(Policy(model), one))
    return made


@pytest.mark.parametrize("config", [UNTIED, DROPPING], ids=["packed", "padded"])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["weights", "adapters"])
def test_gradient_checkpointing_does_not_change_the_gradient(config, lora):
    """Also for packed rows, and with dropout, which a policy must not apply."""
    ours, plain = learners(config, OptimizerSettings(gradient_checkpointing=True), lora=lora)
    found, expected = gradients(ours), gradients(plain)
    assert found.keys() == expected.keys() and len(found) > 4
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


def test_gradient_checkpointing_works_for_losses_of_several_terms():
    """The norm of each part takes a backward pass of its own over the same activations."""
    found = []
    for learner in learners(UNTIED, OptimizerSettings(gradient_checkpointing=True)):
        batch = learner.observe(BATCH).with_(advantage=torch.ones(len(BATCH.tokens)))
        found.append(learner.update(batch, UPDATE, 0))
    assert {"update/norm/likelihood", "update/norm/entropy"} <= found[1].keys()
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize("asked", ["gradient", "observe"])
def test_out_of_memory_gives_a_one_line_error_with_advice(asked):
    """The allocator really gets a request for a petabyte."""
    learner = Learner(Policy(model_of(UNTIED)), OptimizerSettings())
    learner.policy.split.hidden = lambda **inputs: torch.empty(2**50)
    with pytest.raises(OutOfMemory, match=r"\d tokens: lower .*microbatch-tokens") as error:
        learner.observe(BATCH) if asked == "observe" else learner.gradient(BATCH, UPDATE, 0)
    assert "\n" not in str(error.value)


def test_a_critic_checkpoints_its_own_activations():
    update = Update(loss=add(LOSS, value_error(None, "a/target")))
    found = []
    for learner in learners(UNTIED, OptimizerSettings(gradient_checkpointing=True)):
        learner.add_critic(CriticPlan())
        torch.nn.init.ones_(learner.critic.network.model.lm_head.weight)
        learner.policy.model.config._attn_implementation = "eager"  # Excluding the critic's.
        target = torch.linspace(-1, 1, len(BATCH.tokens))
        batch = BATCH.with_(**{VALUE: torch.zeros_like(target), "a/target": target})
        learner.gradient(batch, update, 0)
        found.append([p.grad for p in learner.critic.network.model.parameters()])
    assert any(gradient.abs().max() > 1e-3 for gradient in found[1])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def kept(learner):
    """Elements that the forward pass keeps for the backward pass, outside of checkpoints."""
    total = []

    def keep(tensor):
        total.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.policy(BATCH)
    return sum(total)


def test_gradient_checkpointing_keeps_fewer_activations():
    ours, plain = learners(TIED, OptimizerSettings(gradient_checkpointing=True))
    assert kept(ours) < 0.5 * kept(plain)


def test_attention_multiplies_in_the_type_of_the_values_and_keeps_its_scores():
    """Scores in bfloat16 would be off by a fifth here; products with probabilities are not."""
    generator = torch.Generator().manual_seed(0)
    query, key, value, grad = (
        torch.randn(1, heads, 40, 16, generator=generator) for heads in (4, 2, 2, 4)
    )
    path = torch.arange(40)
    pieces = (
        tree_attention.Block(path[:24], slice(0, 24)),
        tree_attention.Block(path, slice(24, 40)),
    )
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [(8 * x).requires_grad_() for x in (query, key)]
        leaves.append(value.clone().to(dtype).requires_grad_())
        mixed, _ = tree_attention.block_attention(
            torch.nn.Identity(), *leaves, None, blocks=pieces, scaling=0.25
        )
        mixed.backward(grad.transpose(1, 2).to(mixed.dtype))
        found.append([mixed.detach(), *(leaf.grad for leaf in leaves)])
    assert leaves[2].grad.dtype == torch.bfloat16
    for exact, low in zip(*found, strict=True):
        error = (low.float() - exact).norm() / exact.norm()
        assert 0 < error < 0.05


def test_autocast_computes_in_bfloat16_and_keeps_weights_in_float32():
    ours, plain = learners(UNTIED, OptimizerSettings(precision="bfloat16"))
    kinds = []
    layer = ours.policy.model.model.layers[0].mlp
    layer.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    found, expected = gradients(ours), gradients(plain)
    assert kinds == [torch.bfloat16]
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in (found, expected))
    assert one.dtype == torch.float32 and not torch.allclose(one, other, atol=1e-6)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
    seen = [learner.observe(BATCH).logprob for learner in (ours, plain)]
    assert seen[0].dtype == torch.float32
    assert 0 < (seen[0] - seen[1]).abs().max() < 0.1


def test_an_architecture_without_gradient_checkpointing_is_rejected():
    model = model_of(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4))
    model.supports_gradient_checkpointing = False
    with pytest.raises(
        ConfigError, match="MambaForCausalLM does not support gradient checkpointing"
    ):
        Learner(Policy(model), OptimizerSettings(gradient_checkpointing=True))


def one_signed(model, steps, rate):
    """The total change of the weights in AdamW steps with gradients of one sign."""
    settings = OptimizerSettings(learning_rate=rate, warmup_steps=0)
    learner = Learner(Policy(model), settings)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        for group in learner.optimizer.param_groups:
            group["lr"] = rate
        learner.optimizer.step()
    return torch.cat([(b - a).flatten().float() for a, b in zip(trained, before, strict=True)])


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["weights", "adapters"])
def test_small_steps_change_weights_that_were_loaded_in_bfloat16(lora):
    """200 steps of 1e-6 in one direction change every weight by 2e-4 up to rounding."""
    model = model_of(UNTIED).bfloat16()
    if lora is not None:
        add_lora(model, lora, seed=0)
    moved = one_signed(model, 200, 1e-6)
    assert torch.allclose(moved, torch.full_like(moved, 2e-4), rtol=0.02, atol=2e-5)
    states = Learner(Policy(model)).optimizer.param_groups[0]["params"]
    assert {p.dtype for p in states} == {torch.float32}


@pytest.mark.parametrize(
    ("precision", "kind", "expected"),
    [
        ("auto", torch.float32, torch.float32),
        ("auto", torch.bfloat16, torch.bfloat16),
        ("float32", torch.bfloat16, torch.float32),
        ("bfloat16", torch.float32, torch.bfloat16),
    ],
)
def test_the_precision_of_a_small_model_follows_its_weights_unless_set(precision, kind, expected):
    model = model_of(UNTIED).to(kind)
    assert compute_dtype(precision, model) == expected


@pytest.mark.parametrize("fast", [True, False])
def test_a_large_model_computes_in_bfloat16_where_the_hardware_does(monkeypatch, fast):
    monkeypatch.setattr("agentgym.models.precision.LARGE", 1)
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast, "amx_bf16": False}
    )
    expected = torch.bfloat16 if fast else torch.float32
    assert compute_dtype("auto", model_of(UNTIED)) == expected


def test_reloaded_adapters_stay_in_float32_on_a_bfloat16_base(tmp_path):
    model_of(UNTIED).bfloat16().save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base", device="cpu", dtype=torch.bfloat16)
    add_lora(model, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1e-4 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "adapters")
    again = load_model(tmp_path / "adapters", device="cpu", dtype=torch.bfloat16)
    for (name, one), (_, other) in zip(
        model.named_parameters(),  # type: ignore[attr-defined]
        again.named_parameters(),  # type: ignore[attr-defined]
        strict=True,  # type: ignore[attr-defined]
    ):
        assert torch.equal(one, other) and one.dtype == other.dtype, name
