"""Invariants of the four methods, one test each, named after the method and its number."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agentgym.batch.collate import collate
from agentgym.batch.turns import turns_of
from agentgym.credit.weights import TOKENS, TURNS, finished, keep_only, side_weights
from agentgym.losses.compose import Outputs, add, scale, weighted_by
from agentgym.losses.surrogates import clipped_tokens, entropy_bonus, policy_gradient
from agentgym.models import from_scratch
from agentgym.models.policy import Policy
from agentgym.settings import ScratchSettings
from agentgym.testing.batches import batch_of, written
from agentgym.testing.episodes import MIXED, TIED, made_up
from agentgym.training.learner import Learner
from agentgym.types import Completion
from agentgym_trainers.aepo import AEPO, scale_by_entropy
from agentgym_trainers.clipcov import KEPT, covariance
from agentgym_trainers.corridor import (
    HIGH,
    LOW,
    corridor,
    outside,
    outside_indicator,
    overall_history,
)
from agentgym_trainers.curriculum import fade, ramp
from agentgym_trainers.drbot import DrBoT, highest_variance_tasks, repetitive, return_std
from agentgym_trainers.empg import EMPG, centre_steps, rescale, reward_clarity, scale_by_confidence
from agentgym_trainers.epo import EPO, settle, two_pieces
from agentgym_trainers.forking import budget, released_probability, score
from agentgym_trainers.replay import REPLAYED, burst, fresh, replayed, sample
from agentgym_trainers.spear import SPEAR


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


# ---- EPO ---------------------------------------------------------------------------------------


def band(entropies, reference, low=0.5, high=1.5):
    batch = batch_of([[1] * len(entropies)])
    batch = corridor(batch, torch.full((len(batch.mask),), reference).double(), low, high)
    entropy = written(batch, entropies)
    return outside().apply(Outputs(entropy, entropy), batch, 0)[batch.mask]


def test_epo_1_the_first_step_has_no_penalty():
    batch = batch_of([[2], [2]])
    batch = batch.with_(entropy=written(batch, [0.1, 5, 2, 3]))
    transform = overall_history(0.5, 1.5)
    batch, state = transform.apply(batch, transform.init(), 0)
    value = outside().apply(Outputs(batch.entropy, batch.entropy), batch, 0)
    assert value.abs().max() == 0
    assert state == (near(2.525), 1)


def side_term(loss, entropies):
    """Value and slope of EPO's own term, at entropies inside or far outside the corridor."""
    batch = batch_of([[1] * len(entropies)])
    batch = corridor(batch, torch.full((len(batch.mask),), 0.5).double(), 0.5, 1.5)
    entropy = written(batch, entropies).requires_grad_()
    value = loss.apply(Outputs(torch.zeros_like(entropy), entropy), batch, 3)
    (slope,) = torch.autograd.grad(value.sum(), entropy)
    return value[batch.mask].tolist(), slope[batch.mask].tolist()


def test_epo_2_without_penalty_the_loss_is_that_of_the_base_with_a_bonus():
    """Bitwise, both with a weight of 0 and with a schedule of 0."""
    _, term = EPO(entropy_coef=0.01, smoothing_weight=0.0).build().updates[0].loss.terms()
    _, paid = EPO(entropy_coef=0.01).build().updates[0].loss.terms()
    plain = scale(0.01, weighted_by(TURNS, entropy_bonus()))
    faded = add(plain, scale(lambda step: 0.0, weighted_by(TURNS, outside())))
    entropies = [0.01, 2.0, 5.0, 0.3]
    expected = side_term(plain, entropies)
    assert side_term(term, entropies) == expected == side_term(faded, entropies)
    assert term.weight == plain.weight == TURNS
    assert side_term(paid, entropies) != expected


def test_epo_3_inside_the_corridor_the_penalty_is_zero():
    assert band([0.5, 0.8, 1.1], 0.8).tolist() == [0, 0, 0]


def test_epo_4_the_penalty_has_a_gradient_on_both_sides_and_the_indicator_has_none():
    entropies = [0.1, 0.5, 0.9]
    assert side_term(outside(), entropies)[1] == [-1, 0, 1]
    batch = batch_of([[1] * 3])
    batch = corridor(batch, torch.full((6,), 0.5).double(), 0.5, 1.5)
    entropy = written(batch, entropies).requires_grad_()
    value = outside_indicator().apply(Outputs(entropy, entropy), batch, 0)
    assert value[batch.mask].tolist() == [1, 0, 1] and not value.requires_grad


def test_epo_5_without_a_lower_bound_low_entropy_has_no_penalty():
    assert band([1e-9, 0.1], 0.8, low=0.0).tolist() == [0, 0]


def test_epo_6_the_penalty_scales_with_entropy_and_reference_together():
    once, thrice = band([0.1, 2.0], 0.8), band([0.3, 6.0], 2.4)
    assert thrice.tolist() == near((3 * once).tolist())


def test_epo_7_the_schedule_settles_from_two_towards_one():
    beta = [settle(75)(k) for k in range(150)]
    assert beta[0] == 2 and beta[75] == near(1 + math.exp(-3))
    assert all(a > b > 1 for a, b in itertools.pairwise(beta))


def test_epo_8_a_step_equal_to_the_history_does_not_change_its_mean():
    def reference(means):
        transform = overall_history(1.0, 2.0)
        state = transform.init()
        for mean in means:
            batch = batch_of([[2]])
            batch = batch.with_(entropy=written(batch, [mean, mean]))
            _, state = transform.apply(batch, state, 0)
        return state[0] / state[1]

    assert reference([1, 0.5, 0.75]) == near(reference([1, 0.5]))
    assert reference([1, 0.5, 0.8]) != near(reference([1, 0.5]))


@pytest.mark.parametrize(("penalty", "down"), [(0.1, False), (1.0, True)])
def test_epo_9_only_a_penalty_above_the_bonus_pushes_entropy_down(penalty, down):
    loss = EPO(smoothing_weight=penalty).build().updates[0].loss
    extra = list(loss.terms())[1]
    batch = batch_of([[1]])
    batch = corridor(batch, torch.full((2,), 0.5).double(), 0.5, 1.5)
    entropy = written(batch, [2.0]).requires_grad_()
    extra.apply(Outputs(entropy * 0, entropy), batch, 5)[batch.mask].sum().backward()
    assert (float(entropy.grad[batch.mask]) > 0) is down


def test_epo_10_turn_means_equal_token_means_only_where_all_turns_have_one_length():
    for turns, alike in [([[2, 2], [2, 2]], True), ([[2, 1], [2, 2]], False)]:
        batch = batch_of(turns)
        batch = side_weights(TURNS).apply(batch, (), 0)[0]
        batch = side_weights(TOKENS).apply(batch, (), 0)[0]
        assert torch.allclose(batch.extra[TURNS].float(), batch.extra[TOKENS]) is alike


def test_epo_11_the_released_schedule_jumps_in_the_middle():
    assert two_pieces()(0) == 1
    assert two_pieces()(76) - two_pieces()(75) == near(-0.05843551)


def test_epo_the_current_step_enters_the_history_after_its_own_reference():
    transform = overall_history(1.0, 1.0)
    batch = batch_of([[1]])
    _, state = transform.apply(batch.with_(entropy=written(batch, [2.0])), transform.init(), 0)
    found, _ = transform.apply(batch.with_(entropy=written(batch, [9.0])), state, 1)
    assert float(found.extra[LOW][found.mask]) == float(found.extra[HIGH][found.mask]) == 2.0


# ---- EMPG --------------------------------------------------------------------------------------


def steps(entropy, advantage=None, lengths=((2, 1, 3), (1, 2))):
    """A batch with these entropies and advantages per turn, equal on all tokens of a turn."""
    batch = batch_of([list(episode) for episode in lengths])
    turns = turns_of(batch)
    column = torch.tensor(entropy, dtype=torch.float64)
    given = torch.tensor(advantage or [1.0] * len(entropy), dtype=torch.float64)
    return batch.with_(
        entropy=turns.spread(column, batch), advantage=turns.spread(given, batch)
    ), turns


def empg(batch, k=1.0, zeta=0.05):
    for transform in (scale_by_confidence(k), reward_clarity(k, zeta), centre_steps()):
        batch = transform.apply(batch, (), 0)[0]
    return turns_of(batch).first(batch.advantage)


ENTROPY = [0.9, 0.3, 0.5, 0.1, 0.7]


def factor(k, entropy=ENTROPY):
    batch, turns = steps(entropy)
    return turns.first(scale_by_confidence(k).apply(batch, (), 0)[0].advantage)


def test_empg_1_without_sharpness_and_bonus_only_the_mean_is_subtracted():
    batch, _ = steps(ENTROPY, [1.0, 1.0, 1.0, -1.0, -1.0])
    assert factor(0.0).tolist() == [1] * 5
    assert empg(batch, 0.0, 0.0).tolist() == near([0.8, 0.8, 0.8, -1.2, -1.2])


@pytest.mark.parametrize("k", [0.0, 0.3, 1.0, 5.0])
def test_empg_2_3_9_factors_have_mean_one_fall_with_entropy_and_span_exp_k(k):
    found = factor(k)
    assert float(found.mean()) == near(1, 1e-12)
    assert float(found.max() / found.min()) == near(math.exp(k), 1e-5)
    order = np.argsort(ENTROPY)
    assert k == 0 or (np.diff(found[order].numpy()) < 0).all()


def test_empg_4_final_advantages_sum_to_zero_over_steps():
    batch, _ = steps(ENTROPY, [1.0, 1.0, 1.0, -1.0, -1.0])
    assert float(empg(batch).sum()) == near(0, 1e-12)


def test_empg_5_equal_entropies_change_nothing():
    assert factor(1.0, [0.4] * 5).tolist() == near([1] * 5)
    assert rescale(torch.full((3,), 0.4)).tolist() == [0] * 3


def test_empg_6_shifting_and_scaling_entropy_changes_nothing():
    one, _ = steps(ENTROPY)
    other, _ = steps([3 * h + 2 for h in ENTROPY])
    assert empg(one).tolist() == near(empg(other).tolist())


def test_empg_7_scaling_keeps_the_sign():
    batch, turns = steps(ENTROPY, [1.0, -1.0, 0.0, -2.0, 3.0])
    found = turns.first(scale_by_confidence(2.0).apply(batch, (), 0)[0].advantage)
    assert found.sign().tolist() == [1, -1, 0, -1, 1]


def test_empg_8_an_episodes_last_step_earns_no_bonus():
    batch, turns = steps(ENTROPY)
    bonus = turns.first(reward_clarity(1.0, 0.05).apply(batch, (), 0)[0].advantage) - 1
    assert bonus[[2, 4]].tolist() == [0, 0] and (bonus[[0, 1, 3]] > 0).all()


def test_empg_10_entropies_of_observation_tokens_change_nothing():
    batch, _ = steps(ENTROPY, [1.0, 1.0, 1.0, -1.0, -1.0])
    for junk in (0.0, 50.0, -3.0):
        other = batch.with_(entropy=torch.where(batch.mask, batch.entropy, junk))
        assert empg(other).tolist() == empg(batch).tolist()
    moved = batch.with_(entropy=batch.entropy + 5.0 * batch.mask * (batch.turn == 1))
    assert empg(moved).tolist() != empg(batch).tolist()


def test_empg_11_episodes_in_another_order_have_the_same_advantages():
    """Uses three episodes: swapping two of them is also a rotation of the same cycle."""
    entropy, advantage = [*ENTROPY, 0.2], [1.0, 1.0, 1.0, -1.0, -1.0, 0.5]
    one, _ = steps(entropy, advantage, ((2, 1, 3), (1, 2), (4,)))
    order = [3, 4, 0, 1, 2, 5]
    other, _ = steps(
        [entropy[k] for k in order], [advantage[k] for k in order], ((1, 2), (2, 1, 3), (4,))
    )
    assert empg(other).tolist() == near(empg(one)[order].tolist(), 1e-12)


def test_empg_12_no_gradient_flows_through_an_advantage():
    batch, _ = steps(ENTROPY)
    assert not empg(batch).requires_grad


def test_empg_a_step_counts_once_however_many_tokens_it_has():
    short, _ = steps(ENTROPY, lengths=((1, 1, 1), (1, 1)))
    long, _ = steps(ENTROPY, lengths=((9, 1, 4), (1, 7)))
    assert empg(short).tolist() == near(empg(long).tolist())


def test_empg_tied_groups_do_not_train_by_their_bonus_alone():
    batch = collate(made_up(0, [*MIXED, TIED]))
    batch = batch.with_(entropy=torch.rand(len(batch.mask)) * batch.mask)
    credit = EMPG().build().credit
    found, _ = credit.apply(batch, credit.init(), 0)
    tied = found.mask & (found.group[found.episode_of_token] == 3)
    assert found.weight[tied].sum() == 0
    kept = EMPG.paper().build().credit
    assert kept.apply(batch, kept.init(), 0)[0].weight[tied].sum() > 0


# ---- SPEAR -------------------------------------------------------------------------------------


def run_spear(rewards, config=None, steps=3):
    """Batches after credit, and the states, step by step."""
    credit = (config or SPEAR(replay_size=4)).build().credit
    state, found = credit.init(), []
    for step in range(steps):
        batch = collate(made_up(step, rewards))
        batch = batch.with_(logprob=-torch.rand(len(batch.mask)) * batch.mask, parsed=batch.mask)
        batch, state = credit.apply(batch, state, step)
        found.append((batch, state[-1]))
    return found


def test_spear_1_the_curricula_mirror_each_other():
    for steps_ in (10, 200):
        assert [ramp(steps_)(t) for t in (0, steps_ // 2, steps_, 9999)] == near([0, 0.5, 1, 1])
        assert [fade(steps_)(t) for t in (0, steps_ // 2, steps_, 9999)] == near([1, 0.5, 0, 0])


def test_spear_2_only_episodes_that_beat_their_task_are_kept():
    tied = replace(SPEAR(replay_size=4), acting_reward=0.0)
    (_, state), *_ = run_spear([*MIXED, TIED, [1.0] * 4], tied, steps=1)
    stored, born, means = state
    assert stored["reward"].tolist() == [1.0] * len(born) and len(born) > 0
    assert set(stored["group"].tolist()) <= {0, 1, 2}
    assert means.tolist() == near([0.5, 0.25, 0.75, 0.0, 1.0])


def test_spear_episodes_are_replayed_at_the_next_step_with_their_old_logprobs():
    (first, _), (second, _), _ = run_spear(MIXED)
    assert not replayed(first).any()
    old = second.only(torch.arange(len(second.group)) >= len(first.group))
    assert replayed(second).any() and old.extra[REPLAYED][old.mask].all()
    rows = {tuple(first.tokens[first.row == r].tolist()): r for r in range(len(first))}
    for row in range(len(old)):
        before = rows[tuple(old.tokens[old.row == row].tolist())]
        assert old.logprob[old.row == row].equal(first.logprob[first.row == before])
    assert fresh(second).sum() == len(collate(made_up(1, MIXED)))


def test_spear_3_replayed_advantages_are_positive_and_new_weights_sum_to_one():
    for batch, _ in run_spear(MIXED):
        old = batch.mask & (batch.extra[REPLAYED] > 0)
        assert (batch.advantage[old] > 0).all()
        assert math.isclose(float(batch.weight[batch.extra[REPLAYED] == 0].sum()), 1, rel_tol=1e-5)


def test_spear_a_replayed_advantage_is_the_return_minus_the_median_of_past_task_means():
    """Past tasks had means 1/2, 1/4 and 3/4, so a win has advantage 1/2 at replay."""
    _, (second, _) = run_spear(MIXED, replace(SPEAR(replay_size=99), acting_reward=0.0), steps=2)
    old = second.mask & (second.extra[REPLAYED] > 0)
    assert old.any() and set(second.advantage[old].tolist()) == {0.5}


def test_spear_4_5_a_burst_empties_the_buffer_and_replays_a_power_of_two():
    good = torch.tensor([1.0] * 11 + [-1.0] * 3)
    waiting = burst(8)(good, 0)
    assert not waiting.replay.any() and waiting.stay.all()
    drawn = burst(7, power_of_two=True)(good, 0)
    assert not drawn.stay.any()
    assert (
        int(drawn.replay.sum()) == 7 or int(drawn.replay.sum()) & (int(drawn.replay.sum()) - 1) == 0
    )
    assert (good[drawn.replay] > 0).all()
    assert int(burst(7)(good, 0).replay.sum()) == 7


def test_spear_only_the_released_code_replays_an_episode_at_the_median():
    zero = torch.tensor([0.0] * 4 + [1.0] * 4)
    assert int(burst(2, power_of_two=True)(zero, 1).replay.sum()) == 2
    paper = burst(2)(zero, 1)
    assert (zero[paper.replay] > 0).all()


def test_spear_6_the_replay_buffer_is_bounded_and_drops_old_episodes():
    config = SPEAR(replay_size=4, buffer_size=3, max_age=2, baseline_buffer_size=4)
    for step, (_, (stored, born, means)) in enumerate(run_spear(MIXED, config, steps=6)):
        assert len(born) <= 6 and len(means) <= 4
        assert (step - born <= 2).all() and len(stored["reward"]) == len(born)


def test_spear_an_episode_is_kept_for_exactly_as_many_steps_as_its_largest_age():
    config = SPEAR(replay_size=1, buffer_size=99, max_age=2)
    oldest = [
        int((step - state[1]).max())
        for step, (_, state) in enumerate(run_spear(MIXED, config, steps=5))
    ]
    assert oldest == [0, 1, 2, 2, 2]


def drawn(config, ratios, seed):
    """A minibatch of replayed tokens as the covariance clipping of SPEAR leaves it."""
    rng = np.random.default_rng(seed)
    batch = batch_of([[1] * 20, [1] * 20])
    old, advantage = rng.normal(-2, 1, 40), rng.normal(0, 1, 40)
    batch = batch.with_(logprob=written(batch, old), advantage=written(batch, advantage))
    outputs = Outputs(written(batch, old + np.log(ratios)), torch.zeros_like(batch.entropy))
    imitation = config.build().updates[1]
    batch = imitation.select.apply(outputs, batch, torch.Generator().manual_seed(seed))
    return imitation.loss.apply(outputs, batch, 10**6), batch, outputs


def test_spear_7_covariance_clipping_leaves_out_a_few_tokens_and_without_candidates_none():
    ratios = np.linspace(0.5, 1.6, 40)
    for share, most in [(0.02, 1), (0.1, 4), (0.5, 20)]:
        counts = set()
        for seed in range(5):
            config = SPEAR(clip_cov_ratio=share, clip_cov_low=0.5, clip_cov_high=6.0)
            _, batch, outputs = drawn(config, ratios, seed)
            gone = batch.mask & (batch.extra[KEPT] == 0)
            free = ~clipped_tokens(
                outputs, batch, config.base.clip_ratio_low, config.base.clip_ratio_high
            )
            assert (free & (covariance(outputs, batch) > 0.5))[gone].all()
            counts.add(int(gone.sum()))
        assert 0 < max(counts) <= most
    none = SPEAR(clip_cov_ratio=0.5, clip_cov_low=1e6, clip_cov_high=1e7)
    value, batch, outputs = drawn(none, ratios, 0)
    plain = policy_gradient(none.base.clip_ratio_low, none.base.clip_ratio_high).apply(
        outputs, batch, 0
    )
    assert value.equal(plain) and plain.abs().max() > 0
    few, *_ = drawn(SPEAR(clip_cov_ratio=0.5, clip_cov_low=0.5), ratios, 0)
    assert not few.equal(plain)


def test_spear_8_replay_with_zero_weight_has_no_gradient_and_adam_moments_decay(tokenizer):
    shape = ScratchSettings(
        hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16
    )
    learner = Learner(Policy(from_scratch.make_model(tokenizer, shape, context=256, seed=1)))
    algorithm = SPEAR().build()
    host, imitation = algorithm.updates
    batch = learner.observe(collate(made_up(0, MIXED)))
    batch, _ = algorithm.credit.apply(batch, algorithm.credit.init(), 0)
    learner.update(batch, host, 0)

    def moments(name):
        states = learner.optimizer.state
        return [states[p][name].clone() for p in learner.policy.model.parameters()]

    first, second = moments("exp_avg"), moments("exp_avg_sq")
    before = [p.detach().clone() for p in learner.policy.model.parameters()]
    old = batch.with_(**{REPLAYED: batch.mask.float()})
    metrics = learner.update(old, imitation, 0)
    assert metrics["imitation/grad_norm"] == 0
    assert max(float(m.abs().max()) for m in first) > 0
    for name, kept, held in [("exp_avg", 0.9, first), ("exp_avg_sq", 0.95, second)]:
        for now, then in zip(moments(name), held, strict=True):
            assert torch.allclose(now, kept * then, rtol=1e-5, atol=0)
    after = list(learner.policy.model.parameters())
    assert any(not a.equal(b) for a, b in zip(after, before, strict=True))
    assert learner.update(old, imitation, 20)["imitation/grad_norm"] > 0


def test_spear_9_a_stored_episode_is_dropped_when_the_median_rises():
    """Rewards of 1 are above a median of 0.5 and not above one of 1."""
    config = replace(SPEAR(replay_size=99, baseline_buffer_size=4), acting_reward=0.0)
    credit = config.build().credit
    state = credit.init()
    batch, state = credit.apply(collate(made_up(0, MIXED)), state, 0)
    assert len(state[-1][1]) > 0
    _, state = credit.apply(collate(made_up(1, [[1.0, 1.0]] * 4)), state, 1)
    batch, state = credit.apply(collate(made_up(2, MIXED)), state, 2)
    assert not replayed(batch).any()


def test_spear_a_draw_is_the_same_for_the_same_step():
    good = torch.ones(50)
    assert sample(5)(good, 3).replay.equal(sample(5)(good, 3).replay)
    assert not sample(5)(good, 3).replay.equal(sample(5)(good, 4).replay)
    assert int(sample(5)(good, 3).replay.sum()) == 5 and sample(5)(good, 3).stay.all()


def test_spear_10_a_filtered_turn_has_no_weight():
    batch = collate(made_up(0, MIXED))
    credit = DrBoT(task_keep_ratio=1.0, bad_turns="mask").credit()
    found, _ = credit.apply(batch, credit.init(), 0)
    assert found.weight[found.mask & ~found.parsed].sum() == 0
    assert (found.mask & ~found.parsed).any()
    assert float(found.weight.sum()) == near(1, 1e-5)


def test_spear_11_kept_tasks_deviate_at_least_as_much_as_dropped_ones():
    batch = batch_of(
        [[1]] * 12,
        reward=np.random.default_rng(0).random(12).tolist(),
        group=[i // 3 for i in range(12)],
    )
    kept = turns_of(batch).first(highest_variance_tasks(batch, 0.5))
    spread = return_std(batch)
    assert int(kept.sum()) == 6 and spread[kept].min() >= spread[~kept].max()


def test_a_turn_with_repeated_text_is_detected():
    batch = batch_of([[200, 200]])
    varied = torch.arange(len(batch.mask))
    tokens = torch.where(batch.turn == 1, torch.arange(len(batch.mask)) % 5, varied)
    found = repetitive(batch.with_(tokens=tokens))
    assert found.equal(batch.turn == 1)


# ---- AEPO --------------------------------------------------------------------------------------


RATIOS = [0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 2.0, 2.9, 3.1, 8.0]


def of_aepo_and_grpo(ratios, advantage):
    """Value and slope of each token in the loss of AEPO and in that of its base."""
    batch = batch_of([[1] * len(ratios)])
    batch = batch.with_(advantage=written(batch, [advantage] * len(ratios)))
    found = []
    for algorithm in (AEPO().build(), AEPO().base.build()):
        logprob = written(batch, np.log(ratios).tolist()).requires_grad_()
        outputs = Outputs(logprob, torch.zeros_like(logprob))
        value = algorithm.updates[0].loss.apply(outputs, batch, 0)
        (slope,) = torch.autograd.grad(value.sum(), logprob)
        found += [value[batch.mask].tolist(), slope[batch.mask].tolist()]
    return found


@pytest.mark.parametrize("advantage", [1.7, 0.4, -0.4, -1.7])
def test_aepo_1_2_the_value_equals_grpo_and_the_gradient_differs_beyond_the_upper_clip(advantage):
    value, slope, plain, other = of_aepo_and_grpo(RATIOS, advantage)
    assert value == near(plain, 1e-12)
    beyond = [r > 1.28 and advantage > 0 for r in RATIOS]
    assert [a != near(b, 1e-12) for a, b in zip(slope, other, strict=True)] == beyond
    kept = [s for s, far in zip(slope, beyond, strict=True) if far]
    assert kept == near([-1.28 * advantage] * len(kept))
    stops = [r < 0.8 or r > 3 for r in RATIOS] if advantage < 0 else beyond
    assert [s == 0 for s in other] == stops


def test_aepo_3_while_the_policy_is_unchanged_the_gradient_equals_grpo():
    for advantage in (1.7, -0.4):
        _, slope, _, other = of_aepo_and_grpo([1.0] * 3, advantage)
        assert slope == other == near([-advantage] * 3)


def test_aepo_4_zero_weight_or_equal_entropies_leave_advantages_unchanged():
    batch = batch_of([[3], [2]])
    batch = batch.with_(advantage=written(batch, [1.0, 0.3, -2, 0.7, -1]))
    uneven_ = batch.with_(entropy=written(batch, [0.2, 1, 0.6, 2, 0.1]))
    alike = batch.with_(entropy=written(batch, [0.4] * 5))
    for given, weight, stays in [(uneven_, 0.0, True), (alike, 0.2, True), (uneven_, 0.2, False)]:
        found = scale_by_entropy(weight).apply(given, (), 0)[0].advantage
        assert torch.allclose(found, batch.advantage, atol=1e-12) is stays


def test_aepo_5_entropy_scores_are_standardised_over_generated_tokens():
    batch = batch_of([[3], [2]])
    entropy = written(batch, [0.2, 1, 0.6, 2, 0.1])
    entropy[~batch.mask] = 50
    batch = batch.with_(entropy=entropy, advantage=written(batch, [1.0] * 5))
    found = scale_by_entropy(0.2).apply(batch, (), 0)[0].advantage
    z = (found[batch.mask] - 1) / 0.2
    assert float(z.mean()) == near(0) and float(z.var()) == near(1)
    assert found[~batch.mask].abs().max() == 0


def test_aepo_6_an_advantage_changes_sign_only_five_deviations_below():
    batch = batch_of([[100]])
    batch = batch.with_(
        entropy=written(batch, [1.0] * 99 + [-100.0]), advantage=written(batch, [1.0] * 100)
    )
    found = scale_by_entropy(0.2).apply(batch, (), 0)[0].advantage[batch.mask]
    assert (found[:99] > 0).all() and found[99] < 0


def test_aepo_7_the_budget_is_within_bounds_and_rises_with_the_first_entropy():
    for n in (2, 7, 16):
        found = [budget(n, h, 0.5, 2.0) for h in np.linspace(-20, 20, 81)]
        assert found == sorted(found) and found[0] >= 1 and found[-1] == n
    assert budget(16, 0.5, 0.5, 0.5) == 9


def test_aepo_8_repeated_forks_become_less_likely():
    for rule in (
        lambda rise, streak: released_probability(rise, streak, 0.2, 0.5),
        lambda rise, streak: score(rise, streak, 0.5, 0.2, 0.2),
    ):
        for rise in (-0.5, 0.0, 0.5):
            found = [rule(rise, streak) for streak in range(25)]
            assert all(a >= b for a, b in itertools.pairwise(found)) and found[-1] == 0
        assert rule(0.0, 0) == 0.5
    assert released_probability(0.0, 10, 0.2, 0.5) == 0


def test_aepo_9_the_mask_covers_only_tokens_generated_by_the_policy():
    group = made_up(0, MIXED)
    batch = collate(group)
    generated = [
        token
        for episodes in group
        for episode in episodes
        for turn in episode.turns
        for token in turn.completion.tokens
    ]
    assert batch.tokens[batch.mask].tolist() == generated


def test_aepo_10_the_clip_acts_on_each_token_separately():
    for advantage in (1.0, -1.0):
        value, slope, *_ = of_aepo_and_grpo(RATIOS, advantage)
        alone = [of_aepo_and_grpo([ratio], advantage)[:2] for ratio in RATIOS]
        assert [one for (one,), _ in alone] == near(value, 1e-12)
        assert [one for _, (one,) in alone] == near(slope, 1e-12)
        reversed_, turned, *_ = of_aepo_and_grpo(RATIOS[::-1], advantage)
        assert (reversed_[::-1], turned[::-1]) == (near(value, 1e-12), near(slope, 1e-12))
        assert len({round(x, 6) for x in value}) > 4


# ---- policies for episodes that did not end by themselves ----------------------------------------


def test_a_masked_truncation_counts_in_the_statistics_and_not_in_the_loss():
    batch = collate(made_up(0, MIXED))
    found, _ = keep_only(finished).apply(batch, (), 0)
    assert found.weight[batch.truncated[batch.episode_of_token]].sum() == 0
    assert float(found.weight.sum()) == near(1)
    assert found.reward.equal(batch.reward)


def test_an_empty_completion_does_not_change_other_turns():
    (group,) = made_up(0, [[1.0, 0.0]])
    turns = group[0].turns
    silent = replace(turns[0], completion=Completion((), (), ()))
    batch = collate([[replace(group[0], turns=(silent, *turns[1:])), group[1]]])
    assert turns_of(batch).length.min() > 0
