"""Batch, credit, losses and the learner: the tensors between episodes and weights."""

import functools
import math
import operator
from dataclasses import replace

import pytest
import torch

from agentgym.algorithm import Algorithm, Update
from agentgym.batch.batch import pack, token_mean
from agentgym.batch.collate import collate
from agentgym.credit.transforms import (
    Transform,
    chain,
    group_advantage,
    mean_over_episodes,
    stateless,
)
from agentgym.errors import CompositionError
from agentgym.losses.compose import Loss, Outputs, add, scale
from agentgym.losses.surrogates import entropy_bonus, negative_log_likelihood, policy_gradient
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.rollout.collect import independent
from agentgym.settings import OptimizerSettings, ScratchSettings
from agentgym.training.learner import Learner
from agentgym.training.minibatches import microbatches, minibatches
from agentgym.training.trainer import on_policy
from agentgym.types import Completion, Stop, Task, Trajectory, Turn
from agentgym_trainers.grpo import GRPO


def episode(reward, turns=3, *, windowed=False, stop=Stop.TERMINATED, length=4, sample=0):
    made = []
    for number in range(turns):
        first = 10 + 7 * sample + number
        tokens = tuple(5 + (first + i) % 40 for i in range(length))
        prompt = (1, *(5 + (first * 3 + i) % 50 for i in range(3 + number)))
        made.append(
            Turn(
                prompt,
                Completion(tokens, (-1.0,) * length, (0.5,) * length),
                "a",
                "o",
                reward if number == turns - 1 else 0.0,
                fresh=windowed or number == 0,
            )
        )
    return Trajectory(Task("e", "t"), sample, "g", "o", tuple(made), stop)


def groups(**kwargs):
    return [
        [episode(r, turns=2 + i, sample=i + 4 * g, **kwargs) for i, r in enumerate(rewards)]
        for g, rewards in enumerate([(1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.0)])
    ]


@pytest.fixture
def learner(tokenizer):
    shape = ScratchSettings(
        hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1, intermediate_size=64
    )
    model = from_scratch.make_model(tokenizer, shape, context=512, seed=0)
    return Learner(Policy(model), OptimizerSettings(learning_rate=1e-3))


def gradient(learner, batch, update, tokens_per_pass):
    learner.settings = replace(learner.settings, microbatch_tokens=tokens_per_pass)
    learner.policy.model.zero_grad()
    learner.gradient(batch, update, 0)
    return torch.cat([p.grad.flatten().clone() for p in learner.policy.model.parameters()])


# ---- batch -------------------------------------------------------------------------------------


def test_the_batch_contains_exactly_the_prompt_and_completion_tokens():
    trajectory = episode(1.0)
    batch = collate([[trajectory]])
    expected = [t for turn in trajectory.turns for t in (*turn.prompt, *turn.completion.tokens)]
    assert batch.tokens.tolist() == expected
    written = [t for turn in trajectory.turns for t in turn.completion.tokens]
    assert batch.tokens[batch.mask].tolist() == written
    assert batch.turn[batch.mask].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_window_gives_a_row_per_turn_and_a_growing_context_one():
    assert len(collate([[episode(1.0, turns=3)]])) == 1
    assert len(collate([[episode(1.0, turns=3, windowed=True)]])) == 3


def test_an_episode_of_a_broken_environment_is_not_in_the_batch_or_the_statistics():
    broken = episode(0.0, stop=Stop.ENV_ERROR)
    whole = collate([[episode(1.0), episode(0.0), broken]])
    assert whole.reward.tolist() == [1.0, 0.0]
    advantage = group_advantage(scale=False).apply(whole, (), 0)[0].advantage
    assert set(advantage[whole.mask].tolist()) == {0.5, -0.5}


def test_episodes_without_turns_give_a_batch_without_rows_and_the_same_types():
    """Where the first prompt of a later step does not fit, an episode ends before it begins."""
    silent = replace(episode(1.0), turns=(), stop=Stop.MAX_TOKENS)
    batch = collate([[silent, silent]])
    assert len(batch) == 0 and batch.reward.tolist() == [0.0, 0.0]
    usual = pack(collate(groups()))
    assert {k: v.dtype for k, v in pack(batch).items()} == {k: v.dtype for k, v in usual.items()}


def test_a_random_action_is_context_and_never_trained_on():
    trajectory = episode(1.0)
    slipped = replace(trajectory.turns[1], learn=False)
    trajectory = replace(trajectory, turns=(trajectory.turns[0], slipped, trajectory.turns[2]))
    batch = collate([[trajectory]])
    assert batch.turn[batch.mask].tolist() == [0] * 4 + [2] * 4
    assert math.isclose(float(batch.weight.sum()), 1.0, rel_tol=1e-6)


def test_selected_rows_keep_their_columns_together():
    batch = collate(groups(windowed=True))
    batch = batch.with_(**{"paper/column": torch.arange(len(batch.tokens)).float()})
    index = torch.tensor([5, 0, 3])
    part = batch.rows(index)
    for new, old in enumerate(index.tolist()):
        assert part.tokens[part.row == new].equal(batch.tokens[batch.row == old])
        column = part.extra["paper/column"][part.row == new]
        assert column.equal(batch.extra["paper/column"][batch.row == old])
    assert part.episode.tolist() == batch.episode[index].tolist()


def test_microbatches_cover_every_row_once_within_the_budget():
    batch = collate(groups())
    found = [index.tolist() for index in microbatches(batch, 60, shared=False)]
    assert functools.reduce(operator.iadd, found, []) == list(range(len(batch)))
    lengths = batch.lengths
    assert all(len(run) == 1 or lengths[run].sum() <= 60 for run in found)


# ---- credit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("windowed", [False, True])
def test_grpo_statistics_are_over_episodes_not_rows(windowed):
    """Rewards (1, 0, 0, 1) and (0, 0, 1, 0): means 1/2 and 1/4, deviations 1/2 and sqrt(3)/4."""
    batch = collate(groups(windowed=windowed))
    batch = group_advantage(epsilon=0.0).apply(batch, (), 0)[0]
    expected = [1, -1, -1, 1, *(x / (math.sqrt(3) / 4) for x in (-0.25, -0.25, 0.75, -0.25))]
    for number, value in enumerate(expected):
        mine = batch.advantage[batch.mask & (batch.episode[batch.row] == number)]
        assert mine.tolist() == pytest.approx([value] * len(mine), abs=1e-6)
    assert batch.advantage[~batch.mask].abs().max() == 0


def test_equal_returns_and_groups_of_one_get_no_credit_and_no_weight():
    batch = collate([[episode(1.0), episode(1.0)], [episode(1.0)], [episode(0.0), episode(1.0)]])
    credit = chain(group_advantage(), mean_over_episodes())
    batch = credit.apply(batch, credit.init(), 0)[0]
    silent = batch.episode[batch.row] < 3
    assert batch.advantage[silent].abs().max() < 1e-3
    assert batch.weight[silent].sum() == 0
    assert math.isclose(float(batch.weight.sum()), 1.0, rel_tol=1e-6)


@pytest.mark.parametrize("windowed", [False, True])
def test_every_episode_has_the_same_weight_whatever_its_length(windowed):
    """Then the advantages of a group balance, which a token mean over long failures upsets."""
    batch = collate(groups(windowed=windowed))
    credit = chain(group_advantage(), mean_over_episodes())
    batch = credit.apply(batch, credit.init(), 0)[0]
    share = torch.zeros(8).index_add_(0, batch.episode[batch.row], batch.weight)
    assert share.tolist() == pytest.approx([1 / 8] * 8)
    assert float((batch.weight * batch.advantage).sum()) == pytest.approx(0, abs=1e-6)


def test_a_transform_that_reads_an_unwritten_column_is_rejected_when_composed():
    needs = Loss(lambda outputs, batch, step: outputs.logprob, frozenset({"epo/reference"}))
    with pytest.raises(CompositionError, match="epo/reference"):
        Algorithm(collect=independent(2), credit=group_advantage(), updates=(Update(loss=needs),))
    writer = stateless(lambda batch: batch, writes={"epo/reference"})
    Algorithm(collect=independent(2), credit=chain(writer), updates=(Update(loss=needs),))


def test_a_chain_passes_on_the_state_of_each_transform():
    def counting(by):
        def apply(batch, state, step):
            return batch, state + by

        return Transform(init=lambda: 0, apply=apply)

    both = chain(counting(1), counting(10))
    state = both.init()
    for step in range(3):
        _, state = both.apply(collate([[episode(1.0)]]), state, step)
    assert state == (3, 30)


# ---- losses ------------------------------------------------------------------------------------


def one_token(logprob, advantage, old=-1.0):
    batch = collate([[episode(1.0, turns=1, length=1)]])
    mask = batch.mask
    column = torch.zeros(len(mask))
    batch = batch.with_(
        advantage=column.masked_fill(mask, advantage), logprob=column.masked_fill(mask, old)
    )
    return Outputs(column.masked_fill(mask, logprob), column), batch, mask


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # slope: d loss / d logprob, 0 where the clip holds
        (1.0, 2.0, -2.0, -2.0),
        (1.5, 1.0, -1.3, 0.0),
        (1.5, -1.0, 1.5, 1.5),
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
    ],
)
def test_the_clipped_surrogate_and_its_gradient(ratio, advantage, loss, slope):
    outputs, batch, mask = one_token(-1.0 + math.log(ratio), advantage)
    logprob = outputs.logprob.requires_grad_()
    value = policy_gradient(0.2, 0.3).apply(Outputs(logprob, outputs.entropy), batch, 0)
    value[mask].sum().backward()
    assert float(value[mask].detach()) == pytest.approx(loss, abs=1e-6)
    assert float(logprob.grad[mask]) == pytest.approx(slope, abs=1e-6)


def test_losses_add_and_scale_with_schedules():
    outputs, batch, mask = one_token(-2.0, 0.0)
    outputs = Outputs(outputs.logprob, torch.ones_like(outputs.logprob) * mask)
    loss = add(negative_log_likelihood(), scale(lambda step: 0.1 * step, entropy_bonus()))
    assert float(loss.apply(outputs, batch, 5)[mask]) == pytest.approx(2.0 - 0.5)


@pytest.mark.parametrize("loss", [policy_gradient(), negative_log_likelihood(), entropy_bonus()])
def test_every_loss_term_has_a_gradient(learner, loss):
    batch = learner.observe(collate(groups()))
    batch = group_advantage().apply(batch, (), 0)[0]
    assert gradient(learner, batch, Update(loss=loss), 10_000).abs().max() > 1e-4


# ---- policy and learner ------------------------------------------------------------------------


def test_packed_and_padded_rows_give_the_same_numbers_as_single_rows(learner):
    batch = collate(groups(windowed=True))
    with torch.no_grad():
        packed = learner.policy(batch)
        learner.policy.shares_prefixes = False
        padded = learner.policy(batch)
    assert torch.allclose(packed.logprob, padded.logprob, atol=1e-5)
    assert torch.allclose(packed.entropy, padded.entropy, atol=1e-5)
    for row in range(len(batch)):
        ids = batch.tokens[batch.row == row]
        with torch.no_grad():
            logp = learner.policy.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for at in (batch.mask & (batch.row == row)).nonzero().squeeze(-1).tolist():
            here = at - int((batch.row < row).sum())
            assert float(packed.logprob[at]) == pytest.approx(
                float(logp[here - 1, ids[here]]), abs=1e-5
            )
            entropy = -(logp[here - 1].exp() * logp[here - 1]).sum()
            assert float(packed.entropy[at]) == pytest.approx(float(entropy), abs=1e-4)


def test_temperature_is_part_of_the_policy(learner):
    batch = collate(groups())
    cold = Policy(learner.policy.model, temperature=0.5)(batch)
    warm = learner.policy(batch)
    assert cold.entropy[batch.mask].mean() < warm.entropy[batch.mask].mean()


@pytest.mark.parametrize("windowed", [False, True])
def test_microbatches_do_not_change_the_gradient(learner, windowed):
    batch = learner.observe(collate(groups(windowed=windowed)))
    credit = chain(group_advantage(), mean_over_episodes())
    batch = credit.apply(batch, credit.init(), 0)[0]
    update = Update(loss=add(policy_gradient(), scale(0.1, entropy_bonus())))
    whole = gradient(learner, batch, update, 100_000)
    assert whole.abs().max() > 1e-4
    for size in (1, 40, 100):
        assert torch.allclose(gradient(learner, batch, update, size), whole, atol=1e-6)


def test_growing_and_windowed_rows_give_the_tokens_of_an_episode_the_same_weight():
    grown, windowed = collate(groups()), collate(groups(windowed=True))
    assert grown.weight[grown.mask].equal(windowed.weight[windowed.mask])


def test_the_learning_rate_warms_up_then_decays_to_its_final_ratio(learner):
    how = OptimizerSettings(learning_rate=1.0, warmup_steps=2, final_lr_ratio=0.2)
    batch = group_advantage().apply(collate(groups()), (), 0)[0]
    update = Update(loss=scale(0.0, policy_gradient()))

    def rates(horizon):
        fresh = Learner(learner.policy, how, horizon=horizon)
        seen = []
        for step in range(5):
            fresh.update(batch, update, step)
            seen.append(fresh.optimizer.param_groups[0]["lr"])
        return seen

    assert rates(4) == pytest.approx([0.5, 0.8, 0.6, 0.4, 0.2])
    assert rates(None) == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0])


def test_minibatches_are_disjoint_cover_all_episodes_and_keep_them_whole(learner):
    batch = collate(groups(windowed=True))
    every = torch.ones(len(batch), dtype=torch.bool)
    shares = list(minibatches(batch, every, 3, learner.generator))
    episodes = [set(batch.episode[index].tolist()) for index in shares]
    assert len(episodes) == 3
    assert sorted(functools.reduce(operator.iadd, map(sorted, episodes), [])) == list(range(8))
    assert sum(len(index) for index in shares) == len(batch)


def test_an_update_without_information_changes_nothing(learner):
    algorithm = GRPO().build()
    batch = learner.observe(collate([[episode(1.0), episode(1.0)]]))
    batch = algorithm.credit.apply(batch, algorithm.credit.init(), 0)[0]
    before = [p.clone() for p in learner.policy.model.parameters()]
    assert learner.update(batch, algorithm.updates[0], 0) == {}
    assert all(a.equal(b) for a, b in zip(before, learner.policy.model.parameters(), strict=True))


def test_an_update_raises_the_likelihood_of_the_better_episode(learner):
    better, worse = episode(1.0, sample=1), episode(0.0, sample=2)
    algorithm = GRPO(minibatches=1).build()
    batch = learner.observe(collate([[better, worse]]))
    batch = algorithm.credit.apply(batch, algorithm.credit.init(), 0)[0]
    learner.update(batch, algorithm.updates[0], 0)
    after = learner.policy(batch)
    moved = (after.logprob - batch.logprob).detach()
    mine = batch.episode[batch.row]
    assert moved[batch.mask & (mine == 0)].sum() > 0 > moved[batch.mask & (mine == 1)].sum()


def test_a_restored_learner_takes_the_same_step(learner, tokenizer):
    import copy

    batch = learner.observe(collate(groups()))
    update = Update(loss=negative_log_likelihood(), minibatches=2)
    learner.update(batch, update, 0)
    twin = Learner(Policy(copy.deepcopy(learner.policy.model)), learner.settings)
    twin.restore(copy.deepcopy(learner.state()))
    learner.update(batch, update, 1)
    twin.update(batch, update, 1)
    pairs = zip(learner.policy.model.parameters(), twin.policy.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_token_mean_gives_every_sampled_token_the_same_weight():
    mask = torch.tensor([True, False, True, True])
    assert token_mean(mask).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_a_log_ratio_out_of_range_leaves_the_metrics_finite(learner):
    """A token without weight may have any log-probability: 0 x infinity would be NaN."""
    batch = learner.observe(collate(groups()))
    far = batch.logprob.clone()
    far[batch.mask.nonzero()[0]] -= 200.0
    weight = torch.where(far == batch.logprob, 1.0, 0.0) * batch.mask
    update = GRPO().build().updates[0]
    metrics = learner.gradient(batch.with_(logprob=far, weight=weight), update, 0)
    assert math.isfinite(metrics["kl"])


@pytest.mark.parametrize(
    ("versions", "expected"), [((3, 3), True), ((2, 3), False), ((3, 2), False), ((2, 2), False)]
)
def test_an_episode_is_on_policy_only_if_all_its_turns_are(versions, expected):
    turns = tuple(
        Turn((1,), Completion((2,), (0.0,), (0.0,), version=version), "", "", 0.0)
        for version in versions
    )
    episode = Trajectory(Task("", ""), 0, "", "", turns, Stop.TERMINATED)
    broken = replace(episode, stop=Stop.ENV_ERROR)
    assert on_policy([[episode, broken]], 3) == [expected]
