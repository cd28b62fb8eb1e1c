"""Log-probabilities from hidden states in chunks equal those of the whole batch."""

import pytest
import torch
from engine_contract import model_of, shaped
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    OPTConfig,
    Qwen2Config,
)

from agentgym.algorithm import Update
from agentgym.batch.collate import collate
from agentgym.losses.compose import add, scale
from agentgym.losses.reductions import nucleus_entropy, tempered_logprob
from agentgym.losses.surrogates import entropy_bonus, negative_log_likelihood
from agentgym.models import policy as module
from agentgym.models.policy import Policy
from agentgym.settings import OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

V = 50
REDUCTIONS = (nucleus_entropy("a/nucleus", 0.9), tempered_logprob("a/warm", 2.0))
LOSS = add(negative_log_likelihood(), scale(0.3, entropy_bonus()))


def episode(turns, seed):
    generator = torch.Generator().manual_seed(seed)

    def words(count):
        return tuple(torch.randint(V, (count,), generator=generator).tolist())

    zeros = (0.0,) * 6
    made = [
        Turn(words(4), Completion(words(6), zeros, zeros), "a", "o", 0.0, fresh=number == 0)
        for number in range(turns)
    ]
    return Trajectory(Task("e", "t"), seed, "g", "o", tuple(made), Stop.TERMINATED)


BATCH = collate([[episode(turns, turns) for turns in (3, 1, 4)]])

SMALL = {"n_positions": 160, "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": V}
KINDS = {
    "tied": Qwen2Config(**shaped(tie_word_embeddings=True)),
    "capped logits": Gemma2Config(**shaped(head_dim=8, final_logit_softcapping=2.0)),
    "scaled logits": CohereConfig(**shaped(logit_scale=0.3)),
    "divided logits": GraniteConfig(**shaped(logits_scaling=3.0)),
    "old": GPT2Config(**SMALL),
    "decoder within": OPTConfig(**shaped(ffn_dim=48, word_embed_proj_dim=32)),
}


def by_hand(model, batch, temperature):
    """Row by row from the model's own logits: (P,) log-probability, entropy and reductions."""
    columns = torch.zeros(2 + len(REDUCTIONS), len(batch.tokens))
    for row in range(len(batch)):
        at = (batch.row == row).nonzero().squeeze(-1)
        ids = batch.tokens[at]
        logp = (model(input_ids=ids[None]).logits[0, :-1] / temperature).log_softmax(-1)
        chosen = logp.gather(-1, ids[1:, None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        expected_columns = torch.stack(
            [chosen, entropy, *(r.apply(logp, ids[1:]) for r in REDUCTIONS)]
        )
        columns = columns.index_put((torch.arange(len(columns))[:, None], at[1:]), expected_columns)
    return columns * batch.mask


@pytest.mark.parametrize("kind", KINDS)
def test_chunked_computation_gives_the_values_and_gradients_of_whole_rows(kind, monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", 7 * V)
    model = model_of(KINDS[kind])
    outputs = Policy(model, temperature=0.8)(BATCH, REDUCTIONS)
    found = torch.stack([outputs.logprob, outputs.entropy, *outputs.extra.values()])
    expected = by_hand(model, BATCH, 0.8)
    assert torch.allclose(found, expected, atol=1e-5)
    assert found[:, BATCH.mask].std() > 0.1
    mix = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    gradients = [
        torch.autograd.grad((columns * mix).sum(), list(model.parameters()), allow_unused=True)
        for columns in (found, expected)
    ]
    pairs = [pair for pair in zip(*gradients, strict=True) if pair[1] is not None]
    scale = max(float(other.abs().max()) for _, other in pairs)
    for one, other in pairs:
        assert torch.allclose(one / scale, other / scale, atol=1e-5)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that was made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            self.size = max(self.size, one.numel() if isinstance(one, torch.Tensor) else 0)
        return made


def test_no_tensor_has_tokens_by_vocabulary_elements_forward_or_backward(monkeypatch):
    model = model_of(Qwen2Config(**shaped(vocab_size=4000)))
    learner = Learner(Policy(model), OptimizerSettings())
    weights = max(parameter.numel() for parameter in model.parameters())
    with Largest() as whole:
        learner.gradient(BATCH, Update(loss=LOSS), 0)
    assert whole.size == int(BATCH.mask.sum()) * 4000 > weights
    monkeypatch.setattr(module, "MAX_LOGITS", 7 * 4000)
    with Largest() as pieces:
        learner.gradient(BATCH, Update(loss=LOSS), 0)
    assert pieces.size == weights


def test_no_logits_are_saved_for_the_gradient(monkeypatch):
    monkeypatch.setattr(module, "MAX_LOGITS", 7 * 4000)
    policy, kept = Policy(model_of(Qwen2Config(**shaped(vocab_size=4000)))), []
    weights = {id(parameter) for parameter in policy.model.parameters()}

    def keep(tensor):
        if id(tensor) not in weights:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy(BATCH)
    assert 0 < max(kept) < 4000


def test_gradient_norms_of_loss_terms_do_not_change_with_chunking(monkeypatch):
    """Several backward passes through one graph, as `norm/` metrics take."""
    model = model_of(KINDS["tied"])
    learner = Learner(Policy(model), OptimizerSettings(learning_rate=0.0))
    whole = learner.update(BATCH, Update(loss=LOSS), 0)
    monkeypatch.setattr(module, "MAX_LOGITS", 7 * V)
    pieces = learner.update(BATCH, Update(loss=LOSS), 0)
    assert pieces == pytest.approx(whole, rel=1e-4)
    assert {"update/norm/likelihood", "update/norm/entropy"} < set(pieces)
