"""Defaults of the algorithms, and values at the edges of what they accept."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agentgym import plugins
from agentgym.algorithm import RunInfo
from agentgym.batch.batch import REFERENCE, VALUE
from agentgym.batch.collate import collate, returns_differ
from agentgym.credit.advantages import RETURN, centre_over_tokens, gae
from agentgym.credit.weights import mean_over_informative_tokens
from agentgym.errors import ImpossibleValue
from agentgym.losses.compose import Outputs, minibatch_loss
from agentgym.losses.surrogates import policy_gradient
from agentgym.testing.batches import batch_of, written
from agentgym.testing.episodes import MIXED, made_up
from agentgym_trainers.curriculum import reward_acting
from agentgym_trainers.dapo import DAPO
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.empg import EMPG, scale_by_permuted_confidence
from agentgym_trainers.epo import EPO
from agentgym_trainers.forking import Spread, spread
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.ppo import PPO
from agentgym_trainers.replay import sample
from agentgym_trainers.riskpo import Tail, bundles, risk_tracked
from agentgym_trainers.spear import SPEAR


def credited(algorithm, batch, step=0):
    return algorithm.credit.apply(batch, algorithm.credit.init(), step)[0]


# ---- edges ---------------------------------------------------------------------------------------


def test_a_lost_episode_with_a_positive_return_is_rewarded_per_action():
    batch = batch_of([[2, 2, 2], [2, 2, 2]], reward=[0.1, 0.0], won=[False, False])
    found = reward_acting(1.0, lambda step: 1.0, "flat").apply(batch, (), 0)[0]
    assert (found.reward - batch.reward).tolist() == pytest.approx([0.3, 0.3])


def test_an_extreme_ratio_with_zero_advantage_has_zero_loss_and_gradient():
    batch = batch_of([[1]])
    batch = batch.with_(logprob=written(batch, [-1000.0]))
    logprob = written(batch, [-1.0]).requires_grad_()
    loss = policy_gradient(0.2).apply(Outputs(logprob, batch.entropy), batch, 0)
    assert loss.tolist() == [0, 0]
    assert torch.autograd.grad(loss.sum(), logprob)[0].tolist() == [0, 0]


def test_returns_that_differ_only_by_summation_order_count_as_equal():
    one, other = made_up(0, [[1.0, 1.0]])[0]
    one = replace(one, turns=_paid(one, [0.1, 0.2, 0.7]))
    other = replace(other, turns=_paid(other, [0.7, 0.2, 0.1]))
    assert one.reward != other.reward and not returns_differ([one, other])
    assert returns_differ([one, made_up(0, [[0.0]])[0][0]])


def _paid(episode, rewards):
    return tuple(replace(episode.turns[0], reward=r, fresh=k == 0) for k, r in enumerate(rewards))


def test_the_papers_kl_penalty_acts_on_groups_of_equal_returns():
    batch = batch_of([[3], [3]], reward=[0.0, 0.0], group=[0, 0])
    batch = batch.with_(**{REFERENCE: -2.0 * batch.mask})
    for algorithm, acts in [(GRPO.paper(), True), (GRPO(kl_coef=0.04), False)]:
        built = algorithm.build()
        found = credited(built, batch)
        logprob = batch.logprob.clone().requires_grad_()
        loss = minibatch_loss(built.updates[0].loss, Outputs(logprob, batch.entropy), found)
        assert (loss.item() > 0) is acts


def test_a_turn_that_earns_the_whole_return_is_not_bootstrapped():
    with pytest.raises(ImpossibleValue, match="expected 'zero' or 'mask' with gae_over 'turn'"):
        PPO(gae_over="turn", truncated_episodes="bootstrap")
    batch = batch_of([[1, 1]]).with_(truncated=torch.tensor([True]))
    batch = batch.with_(**{VALUE: written(batch, [0.5, 0.5])})
    found = gae(1.0, 1.0, bootstrap=True, per_turn=True).apply(batch, (), 0)[0]
    assert found.extra[RETURN].tolist() == [0, 0, 0, 0]


def test_random_choices_in_credit_depend_on_the_run_seed_and_on_the_step():
    good = torch.ones(40)
    draws = [sample(5, seed)(good, step).replay for seed, step in [(0, 1), (0, 1), (1, 1), (0, 2)]]
    batch = batch_of([[1]] * 40, group=list(range(40)), reward=list(np.arange(40.0)))
    batch = batch.with_(
        entropy=written(batch, np.linspace(0, 1, 40)), advantage=batch.mask.double()
    )

    def permuted(seed, step):
        return scale_by_permuted_confidence(1.0, seed).apply(batch, (), step)[0].advantage

    def bundled(seed, step):
        transform = risk_tracked(5, Tail(0.2, 0.8, 0.5), 0.1, seed)
        return transform.apply(batch, transform.init(), step)[0].advantage

    for found in (
        draws,
        *(
            [draw(seed, step) for seed, step in [(0, 1), (0, 1), (1, 1), (0, 2)]]
            for draw in (permuted, bundled)
        ),
    ):
        assert found[0].equal(found[1])
        assert not found[0].equal(found[2]) and not found[0].equal(found[3])
    assert not bundles(batch, 5, 1).equal(bundles(batch, 5, 2))


# ---- defaults ------------------------------------------------------------------------------------


def test_all_methods_take_the_same_number_of_optimiser_steps():
    for name, kind in plugins.algorithms().items():
        assert kind().build().updates[0].minibatches == 2, name  # type: ignore[call-arg]


def test_schedules_scale_with_the_number_of_steps_of_the_run():
    batch = collate(made_up(0, MIXED))
    for steps in (16, 200):
        run = RunInfo(steps=steps)
        imitation = SPEAR().imitation(run).loss
        outputs = Outputs(batch.logprob - 0.1, batch.entropy)
        part = batch.with_(advantage=batch.mask.float(), **{"clipcov/kept": batch.mask.float()})
        at = [
            float(imitation.apply(outputs, part, step).abs().sum())
            for step in (0, steps // 4, steps // 2, steps)
        ]
        assert at[0] == 0 and at[1] == pytest.approx(at[2] / 2) and at[2] == at[3] > 0
        acting = SPEAR().curriculum(run)
        paid = [
            float((acting.apply(batch, (), step)[0].reward - batch.reward).sum())
            for step in (0, steps // 2, steps)
        ]
        assert paid[1] == pytest.approx(paid[0] / 2) and paid[2] == pytest.approx(0, abs=1e-6)
        outside = batch.with_(**{"epo/low": batch.entropy + 1, "epo/high": batch.entropy + 2})
        penalty = list(EPO().build(run).updates[0].loss.apart())[-1]
        size = [float(penalty.apply(outputs, outside, step).sum()) for step in (0, steps // 2)]
        assert size[1] / size[0] == pytest.approx((1 + np.exp(-3)) / 2, rel=1e-4)


def test_length_limits_follow_the_token_limit_of_an_episode_in_the_run():
    batch = batch_of([[30], [20], [1]], reward=[1.0, 1.0, 0.0], group=[0, 0, 0])
    run = RunInfo(max_turns=3, max_completion_tokens=10)
    found = DAPO().shaping(run).apply(batch, ((),), 0)[0]
    assert found.reward.tolist() == pytest.approx([0.0, 1.0, 0.0])
    fixed = DAPO(max_episode_tokens=1000).shaping(run).apply(batch, ((),), 0)[0]
    assert fixed.reward.tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_lambda_is_one_where_completions_are_long():
    assert PPO().lambda_for(RunInfo(max_completion_tokens=32)) == 0.95
    assert PPO().lambda_for(RunInfo(max_completion_tokens=512)) == 1.0
    assert PPO(gae_lambda=0.9).lambda_for(RunInfo(max_completion_tokens=512)) == 0.9


def test_dapo_is_centred_over_the_tokens_of_each_task():
    batch = batch_of([[1], [30], [2], [5]], reward=[1.0, 0.0, 0.0, 1.0], group=[0, 0, 1, 1])
    found = credited(DAPO().build(), batch)
    for task in (0, 1):
        inside = batch.mask & (batch.group[batch.episode_of_token] == task)
        assert float((found.advantage * found.weight)[inside].sum()) == pytest.approx(0, abs=1e-7)
    paper = credited(DAPO(baseline_over="episodes").build(), batch)
    assert float((paper.advantage * paper.weight).sum()) < -0.5
    tied = batch.with_(reward=torch.zeros(4, dtype=torch.float64))
    assert credited(DAPO().build(), tied).weight.sum() == 0
    assert centre_over_tokens().apply(found, (), 0)[0].advantage.allclose(found.advantage)
    assert mean_over_informative_tokens().apply(found, (), 0)[0].weight.sum() == pytest.approx(1)


def test_dr_bot_masks_a_malformed_turn_only_where_its_advantage_is_positive():
    batch = batch_of([[1, 1], [1, 1]], reward=[1.0, 0.0], group=[0, 0])
    parsed = torch.tensor([False, False, False, True] * 2)
    batch = batch.with_(parsed=parsed)
    found = credited(DrBoT().build(), batch)
    assert (found.weight[batch.mask] > 0).tolist() == [False, True, True, True]
    paper = credited(DrBoT.paper().build(), batch)
    assert (paper.weight[batch.mask] > 0).tolist() == [False, True, False, True]


def test_empgs_control_only_centres_over_steps():
    batch = batch_of([[1], [1, 1, 1]], reward=[1.0, 0.0], group=[0, 0])
    batch = batch.with_(entropy=written(batch, [0.1, 0.5, 0.9, 1.3]))
    plain, found = credited(GRPO().build(), batch), credited(EMPG.control().build(), batch)
    shift = (plain.advantage - found.advantage)[batch.mask]
    assert shift.tolist() == pytest.approx([-0.5] * 4, abs=1e-5)


# ---- forks ---------------------------------------------------------------------------------------


def test_forks_are_spread_over_long_episodes_and_follow_the_papers_in_short_ones():
    def found(probability=None, **how):
        how = {"by_chance": True, "forks": 4, "roots": 4, "run": RunInfo(max_turns=20), **how}
        return spread(probability, 0.2, **how)

    assert found() == pytest.approx((1 / 15, 0.2 * 2 / 15))
    assert found(run=RunInfo(max_turns=6)) == Spread(0.5, 0.2)
    assert found(0.3) == Spread(0.3, 0.2)
    assert found(by_chance=False) == Spread(0.5, 0.2)
