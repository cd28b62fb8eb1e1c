"""Rows with a common prefix share its computation, with the same outputs as without sharing."""

from dataclasses import replace
from functools import reduce
from operator import add as plus

import numpy as np
import pytest
import torch
from engine_contract import model_of
from transformers import (
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from agentgym.algorithm import Update
from agentgym.batch.collate import collate
from agentgym.batch.prefix_tree import build_forest
from agentgym.losses.compose import add, scale
from agentgym.losses.reductions import expected_tilt
from agentgym.losses.surrogates import entropy_bonus, negative_log_likelihood
from agentgym.models import tree_attention
from agentgym.models.policy import Critic, Policy
from agentgym.settings import OptimizerSettings
from agentgym.training.learner import Learner
from agentgym.training.minibatches import microbatches
from agentgym.types import Completion, Stop, Task, Trajectory, Turn

V = 20
SIZE = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
SHARING = {
    "llama": LlamaConfig(**SIZE, **HEADS),
    "llama, one head each": LlamaConfig(**SIZE, num_attention_heads=4, num_key_value_heads=4),
    "mistral": MistralConfig(**SIZE, **HEADS, sliding_window=None),
    "qwen2": Qwen2Config(**SIZE, **HEADS),
    "qwen2, tied": Qwen2Config(**SIZE, **HEADS, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZE, **HEADS, head_dim=16),
    "qwen3, tied": Qwen3Config(**SIZE, **HEADS, head_dim=16, tie_word_embeddings=True),
}
PADDING = {
    "another family": GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4),
    "a sliding window": MistralConfig(**SIZE, **HEADS, sliding_window=8),
    "a sliding window in later layers": Qwen2Config(
        **SIZE, **HEADS, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "dropout": LlamaConfig(**SIZE, **HEADS, attention_dropout=0.1),
}
UPDATE = Update(loss=add(negative_log_likelihood(), scale(0.3, entropy_bonus())))


def branching(rng, rows, longest=40):
    """Rows that branch from a random place of an earlier row; some are equal, some are prefixes."""
    found = [rng.integers(0, V, int(rng.integers(2, longest))).tolist()]
    while len(found) < rows:
        old = found[int(rng.integers(len(found)))]
        kept = old[: int(rng.integers(0, len(old) + 1))]
        found.append(kept + rng.integers(0, V, int(rng.integers(0, longest - len(kept)))).tolist())
        if len(found[-1]) < 2:
            found.pop()
    return found


def batch_of(rows, rng):
    """Each row is a turn with a fresh prompt; tokens trained in one may be prompt in another."""

    def turn(row):
        read = int(rng.integers(1, len(row)))
        zeros = (0.0,) * (len(row) - read)
        taken = Completion(tuple(row[read:]), zeros, zeros)
        return Turn(tuple(row[:read]), taken, "", "", 0.0, fresh=True)

    batch = collate(
        [[Trajectory(Task("", ""), 0, "", "", (turn(r),), Stop.TERMINATED)] for r in rows]
    )
    weight = torch.tensor(rng.random(len(batch.tokens)), dtype=torch.float32) * batch.mask
    return batch.with_(weight=weight / weight.sum())


def forest_of(seed, rows=12):
    rng = np.random.default_rng(seed)
    return batch_of(branching(rng, rows), rng)


def alone(model, batch):
    """Log-probabilities and entropies of each row computed alone, (P,), with a gradient."""
    logprob, entropy = torch.zeros(2, len(batch.tokens)).unbind()
    for row in range(len(batch)):
        place = (batch.row == row).nonzero().squeeze(-1)
        logp = model(input_ids=batch.tokens[place][None]).logits[0, :-1].log_softmax(-1)
        taken = logp.gather(-1, batch.tokens[place][1:, None]).squeeze(-1)
        logprob = logprob.index_put((place[1:],), taken)
        entropy = entropy.index_put((place[1:],), -(logp.exp() * logp).sum(-1))
    return logprob * batch.mask, entropy * batch.mask


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


# ---- the forest --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_node_is_a_token_with_its_full_prefix(seed):
    batch = forest_of(seed, rows=1 + 5 * seed)
    forest = build_forest(batch.tokens, batch.lengths)
    rows = [row.tolist() for row in batch.tokens.split(batch.lengths.tolist())]
    prefixes = [tuple(row[: k + 1]) for row in rows for k in range(len(row))]
    by_node = dict(zip(forest.node.tolist(), prefixes, strict=True))
    assert [by_node[node] for node in forest.node.tolist()] == prefixes
    assert sorted(by_node) == list(range(len(set(prefixes)))) == list(range(len(forest.tokens)))
    for node, prefix in by_node.items():
        assert forest.tokens[node] == prefix[-1] and forest.depth[node] == len(prefix) - 1
        below = [other for other, longer in by_node.items() if longer[: len(prefix)] == prefix]
        assert sorted(below) == list(range(node, int(forest.end[node])))


def test_a_context_that_grows_row_by_row_is_a_single_path():
    words = torch.arange(3, 15).tolist()
    rows = [words[:5], words[:9], words]
    lengths = torch.tensor([5, 9, 12])
    forest = build_forest(torch.tensor(reduce(plus, rows)), lengths)
    assert [(run.path.tolist(), run.shared) for run in forest.runs] == [(list(range(12)), 0)]


# ---- outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "block"), [*((kind, 128) for kind in SHARING | PADDING), ("qwen3", 3)]
)
def test_outputs_and_gradients_equal_those_of_each_row_alone(kind, block, monkeypatch):
    monkeypatch.setattr(tree_attention, "BLOCK", block)
    model = model_of((SHARING | PADDING)[kind])
    batch = forest_of(len(kind))
    learner = Learner(Policy(model), OptimizerSettings(microbatch_tokens=10_000))
    assert learner.policy.shares_prefixes == (kind in SHARING)

    logprob, entropy = alone(model, batch)
    loss = ((-logprob - 0.3 * entropy) * batch.weight).sum()
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    seen = learner.observe(batch)
    close(seen.logprob, logprob.detach())
    close(seen.entropy, entropy.detach())
    assert abs(learner.gradient(batch, UPDATE, 0)["loss"] - loss.item()) < 1e-5
    assert expected.abs().max() > 1e-2
    close(gradients(model), expected)


@pytest.mark.parametrize("kind", ["qwen3, tied", "a sliding window"])
def test_any_microbatch_split_gives_the_same_gradient_and_order(kind):
    batch = forest_of(1, rows=20)
    learner = Learner(Policy(model_of((SHARING | PADDING)[kind])))
    found = []
    for size in (100_000, 150, 40, 1):
        learner.settings = replace(learner.settings, microbatch_tokens=size)
        learner.policy.model.zero_grad()
        seen = learner.observe(batch)
        learner.gradient(batch, UPDATE, 0)
        found.append((seen.logprob, seen.entropy, gradients(learner.policy.model)))
    for other in found[1:]:
        for one, same in zip(other, found[0], strict=True):
            close(one, same)


def test_vocabulary_reductions_and_the_critic_also_share_prefixes():
    batch, model = forest_of(2), model_of(SHARING["qwen2"])
    policy, asked = Policy(model), expected_tilt("paper/tilt")
    critic = Critic(policy)
    torch.nn.init.normal_(critic.model.get_output_embeddings().weight, std=0.1)
    together = (policy(batch, (asked,)).extra["paper/tilt"], critic(batch))
    for network in (policy, critic.network):
        network.shares_prefixes = False
    padded = (policy(batch, (asked,)).extra["paper/tilt"], critic(batch))
    for one, same in zip(together, padded, strict=True):
        assert one.abs().max() > 0.05
        close(one, same)


def test_a_model_with_length_dependent_rotary_embeddings_shares_no_prefixes():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config = LlamaConfig(**SIZE, **HEADS, rope_parameters=rope)
    assert not Policy(AutoModelForCausalLM.from_config(config)).shares_prefixes


@pytest.mark.parametrize("seed", range(6))
def test_an_attention_tile_is_read_exactly_if_a_row_passes_through_it(seed, monkeypatch):
    monkeypatch.setattr(tree_attention, "TILE", 4)
    batch = forest_of(seed, rows=1 + 3 * seed)
    forest = build_forest(batch.tokens, batch.lengths)
    size = len(forest.tokens)
    count = -(-size // 4)
    sees = torch.zeros(count * 4, count * 4, dtype=torch.bool)
    for query, key in np.ndindex(size, size):
        sees[query, key] = key <= query < int(forest.end[key])
    by_tile = sees.view(count, 4, count, 4).transpose(1, 2).flatten(2)
    found = tree_attention.tiles(forest.end)
    assert torch.equal(found.partial | found.full, by_tile.any(-1))
    assert torch.equal(found.full, by_tile.all(-1))
    assert not (found.partial & found.full).any()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_gpu_mask_gives_the_same_outputs_as_the_block_mask():
    """FlexAttention as transformers calls it, uncompiled; on a CPU it has no gradient."""
    batch, policy = forest_of(3), Policy(model_of(SHARING["qwen3"]))
    forest = build_forest(batch.tokens, batch.lengths)
    with torch.no_grad():
        close(policy.hidden(forest, flex=True), policy.hidden(forest, flex=False))


# ---- cost --------------------------------------------------------------------------------------


def test_a_shared_token_is_computed_once():
    batch, model = forest_of(4, rows=30), model_of(SHARING["llama"])
    lengths = batch.lengths.tolist()
    rows = [row.tolist() for row in batch.tokens.split(lengths)]
    prefixes = {tuple(row[: k + 1]) for row in rows for k in range(len(row))}
    learned = {
        tuple(row[: k + 1])
        for row, mask in zip(rows, batch.mask.split(lengths), strict=True)
        for k in mask.nonzero().squeeze(-1).tolist()
    }
    counted = []
    for part in (model.model.layers[0], model.lm_head):
        part.register_forward_hook(lambda m, i, out: counted.append(out.shape[1]))
    Policy(model)(batch)
    assert counted == [len(prefixes), len(learned)]
    assert len(prefixes) < len(batch.tokens) / 1.5 and len(learned) < int(batch.mask.sum()) / 1.2


def test_a_microbatch_groups_rows_by_prefix_and_counts_shared_tokens_once():
    batch = forest_of(5, rows=40)
    rows = [tuple(row.tolist()) for row in batch.tokens.split(batch.lengths.tolist())]
    found = [index.tolist() for index in microbatches(batch, 60, shared=True)]
    assert sorted(reduce(plus, found)) == list(range(40))
    sizes = [len({rows[n][:k] for n in run for k in range(1, len(rows[n]) + 1)}) for run in found]
    assert max(sizes) <= 60
    assert len(found) < len(list(microbatches(batch, 60, shared=False)))
