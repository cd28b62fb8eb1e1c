"""Settings that save memory: what they leave as it is, and what they keep less of."""

import pytest
import torch
from engine_contract import TIED, UNTIED, model_of
from test_halves import BATCH, LOSS, SMALL
from transformers import GPT2Config, MambaConfig

from agentgym.algorithm import CriticPlan, Update
from agentgym.batch.batch import VALUE
from agentgym.errors import ConfigError, OutOfMemory
from agentgym.losses.compose import add
from agentgym.losses.surrogates import value_error
from agentgym.models.lora import adapt
from agentgym.models.policy import Policy
from agentgym.settings import LoraSettings, OptimizerSettings
from agentgym.training.learner import Learner

UPDATE = Update(loss=LOSS)
DROPPING = GPT2Config(**SMALL, resid_pdrop=0.5, attn_pdrop=0.5)


def gradients(learner, update=UPDATE):
    """Of everything that is trained, by name."""
    learner.gradient(BATCH, update, 0)
    networks = [learner.policy] + ([learner.critic.network] if learner.critic else [])
    named = [pair for network in networks for pair in network.model.named_parameters()]
    return {f"{i}{n}": p.grad for i, (n, p) in enumerate(named) if p.grad is not None}


def learners(config, how, *, lora=None):
    """One with the setting, one without, of the same weights."""
    made = []
    for one in (how, OptimizerSettings()):
        model = model_of(config)
        if lora is not None:
            adapt(model, lora, seed=0)
        made.append(Learner(Policy(model), one))
    return made


@pytest.mark.parametrize("config", [UNTIED, DROPPING], ids=["packed", "padded"])
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["weights", "adapters"])
def test_activations_computed_again_give_the_same_gradient(config, lora):
    """Of rows end to end, and with dropout, which a policy must not have."""
    ours, plain = learners(config, OptimizerSettings(gradient_checkpointing=True), lora=lora)
    found, expected = gradients(ours), gradients(plain)
    assert found.keys() == expected.keys() and len(found) > 4
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-6), name


@pytest.mark.parametrize("asked", ["gradient", "observe"])
def test_memory_that_does_not_suffice_is_one_line_that_says_what_needs_less(asked):
    """The allocator is really asked for a petabyte."""
    learner = Learner(Policy(model_of(UNTIED)), OptimizerSettings())
    learner.policy.halves.hidden = lambda **inputs: torch.empty(2**50)
    with pytest.raises(OutOfMemory, match=r"\d tokens: lower .*microbatch-tokens") as error:
        learner.observe(BATCH) if asked == "observe" else learner.gradient(BATCH, UPDATE, 0)
    assert "\n" not in str(error.value)


def test_a_critic_computes_its_own_activations_again():
    update = Update(loss=add(LOSS, value_error(None, "a/target")))
    found = []
    for learner in learners(UNTIED, OptimizerSettings(gradient_checkpointing=True)):
        learner.add_critic(CriticPlan())
        torch.nn.init.ones_(learner.critic.network.model.lm_head.weight)
        learner.policy.model.config._attn_implementation = "eager"  # Not the critic's.
        target = torch.linspace(-1, 1, len(BATCH.tokens))
        batch = BATCH.with_(**{VALUE: torch.zeros_like(target), "a/target": target})
        learner.gradient(batch, update, 0)
        found.append([p.grad for p in learner.critic.network.model.parameters()])
    assert any(gradient.abs().max() > 1e-3 for gradient in found[1])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True))


def kept(learner):
    """Elements that the forward pass keeps for the gradient, outside of checkpoints."""
    total = []

    def keep(tensor):
        total.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.policy(BATCH)
    return sum(total)


def test_activations_computed_again_are_not_kept():
    ours, plain = learners(TIED, OptimizerSettings(gradient_checkpointing=True))
    assert kept(ours) < 0.5 * kept(plain)


def test_autocast_computes_in_bfloat16_and_keeps_weights_in_float32():
    ours, plain = learners(UNTIED, OptimizerSettings(bf16=True))
    kinds = []
    layer = ours.policy.model.model.layers[0].mlp
    layer.register_forward_hook(lambda module, given, said: kinds.append(said.dtype))
    found, expected = gradients(ours), gradients(plain)
    assert kinds == [torch.bfloat16]
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in (found, expected))
    assert one.dtype == torch.float32 and not torch.allclose(one, other, atol=1e-6)
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
    seen = [learner.observe(BATCH).logprob for learner in (ours, plain)]
    assert seen[0].dtype == torch.float32
    assert 0 < (seen[0] - seen[1]).abs().max() < 0.1


def test_an_architecture_that_cannot_compute_again_is_refused():
    model = model_of(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4))
    model.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match="MambaForCausalLM knows no gradient checkpointing"):
        Learner(Policy(model), OptimizerSettings(gradient_checkpointing=True))
