"""Shared parts of algorithms: columns, terms with own weights, critic, reference, selection."""

import copy
import math
from dataclasses import dataclass, fields, replace

import pytest
import torch

from agentgym import plugins
from agentgym.algorithm import (
    DEFAULT_RUN,
    Algorithm,
    CriticPlan,
    RunInfo,
    Select,
    Update,
    both,
    extend,
)
from agentgym.batch.batch import REFERENCE, VALUE, concatenate, pack, unpack
from agentgym.batch.collate import collate, text_hash
from agentgym.batch.turns import turns_of
from agentgym.credit.advantages import RETURN, gae
from agentgym.credit.importance import correct_sampling, importance
from agentgym.credit.reward_shaping import malformed_penalty, overlong_penalty
from agentgym.credit.transforms import chain, group_advantage, mean_over_episodes, stateless
from agentgym.credit.weights import TURNS, keep_only, side_weights
from agentgym.errors import CompositionError, ImpossibleValue, TrainingError
from agentgym.losses.compose import (
    Loss,
    Outputs,
    add,
    minibatch_loss,
    scale,
    times_column,
    token_sum,
    weighted_by,
)
from agentgym.losses.reductions import nucleus_entropy, tempered_logprob
from agentgym.losses.surrogates import entropy_bonus, kl_to_reference, policy_gradient, value_error
from agentgym.rollout.collect import independent
from agentgym.testing import check_algorithm
from agentgym.testing.batches import batch_of, written
from agentgym.testing.episodes import MIXED, TIED, made_up
from agentgym.testing.trial import Trial
from agentgym.training.minibatches import loss_scale
from agentgym.training.mismatch import stop_on_mismatch
from agentgym.utils.bounds import above, at_least, finite, ordered, within
from agentgym_trainers.aepo import AEPO
from agentgym_trainers.arpo import ARPO
from agentgym_trainers.drbot import DrBoT
from agentgym_trainers.drgrpo import DrGRPO
from agentgym_trainers.epo import EPO
from agentgym_trainers.etmr import ETMR
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.pear import PEAR
from agentgym_trainers.ppo import PPO
from agentgym_trainers.reinforce_pp import ReinforcePPBaseline
from agentgym_trainers.siren import NUCLEUS, anchored, find_peaks


def learner_for(config):
    return Trial("test", config).learner()


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


# ---- columns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("windowed", [False, True])
def test_turn_columns_hold_reward_observation_and_whether_an_action_was_valid(windowed):
    groups = made_up(0, MIXED, windowed=windowed)
    batch = collate(groups)
    turns = turns_of(batch)
    flat = [episode for group in groups for episode in group]
    assert turns.per_episode(turns.first(batch.turn_reward), batch).equal(batch.reward)
    expected = [
        (turn.parsed, text_hash(before))
        for episode in flat
        for turn, before in zip(
            episode.turns,
            [episode.opening, *(turn.observation for turn in episode.turns)],
            strict=False,
        )
    ]
    found = zip(
        turns.first(batch.parsed).tolist(),
        turns.first(batch.observation_hash).tolist(),
        strict=True,
    )
    assert list(found) == expected
    assert batch.truncated.tolist() == [episode.reward == 0 for episode in flat]


@pytest.mark.parametrize("windowed", [False, True])
def test_episode_columns_hold_its_ending_and_its_thought_tokens(windowed):
    groups = made_up(0, MIXED, windowed=windowed)
    batch, flat = collate(groups), [episode for group in groups for episode in group]
    assert batch.won.tolist() == [episode.won for episode in flat] and batch.won.any()
    assert batch.sample.tolist() == [0, 1, 2, 3] * 3
    last = [episode.turns[-1] for episode in flat]
    assert batch.ending_hash.tolist() == [text_hash(f"{t.action}\n{t.observation}") for t in last]
    thoughts = [turn.thought_tokens for episode in flat for turn in episode.turns]
    turns = turns_of(batch)
    assert turns.total(batch.thought.long()).tolist() == thoughts and sum(thoughts) > 0
    place = torch.cat([torch.arange(int(n)) for n in turns.length])
    order = turns.turn.argsort(stable=True)
    ahead = place < torch.tensor(thoughts)[turns.turn[order]]
    assert batch.thought[turns.at[order]].equal(ahead)


def test_reductions_are_columns_before_the_update_and_outputs_during_it():
    sharp = tempered_logprob("test/sharp", 0.5)
    same = tempered_logprob("test/same", 1.0)
    seen = []

    def watch(outputs, batch, step):
        seen.append((outputs.extra["test/sharp"], batch.extra["test/same"], outputs.logprob))
        return -outputs.extra["test/sharp"]

    update = Update(loss=Loss(watch, frozenset({"test/same"}), reductions=(sharp,)))
    asking = stateless(lambda batch: batch, reductions=[same])
    learner = learner_for(GRPO())
    learner.settings = replace(learner.settings, microbatch_tokens=40)
    algorithm = Algorithm(collect=independent(1), credit=asking, updates=(update,))
    learner.reductions = algorithm.credit.reductions
    batch = learner.observe(collate(made_up(0, MIXED)))
    assert torch.allclose(batch.extra["test/same"], batch.logprob, atol=1e-5)
    assert (batch.extra["test/same"][~batch.mask] == 0).all()
    learner.gradient(batch, update, 0)
    now = torch.cat([sharp for sharp, *_ in seen])
    assert len(seen) > 1 and now.requires_grad
    for part, before, logprob in seen:
        assert torch.allclose(before, logprob.detach(), atol=1e-5)
        assert not torch.allclose(part, logprob)


def test_scaled_and_summed_losses_keep_their_requests_for_reductions():
    one, other = tempered_logprob("test/one", 2.0), tempered_logprob("test/other", 3.0)
    asking = Loss(lambda outputs, batch, step: outputs.extra["test/one"], reductions=(one,))
    second = Loss(lambda outputs, batch, step: outputs.extra["test/other"], reductions=(other,))
    whole = add(scale(2.0, asking), weighted_by(TURNS, second), times_column("a/b", asking))
    assert whole.asks() == (one, other)
    both_ = chain(stateless(lambda b: b, reductions=[one]), stateless(lambda b: b))
    assert chain(both_, stateless(lambda b: b, reductions=[one, other])).reductions == (one, other)


def test_two_selections_both_write_and_the_second_reads_the_columns_of_the_first():
    first = Select(lambda o, b, g: b.with_(**{"a/b": b.mask.double()}), frozenset({"a/b"}))
    second = Select(lambda o, b, g: b.with_(**{"a/c": 2 * b.extra["a/b"]}), frozenset({"a/c"}))
    host = extend(GRPO().build(), select=first)
    whole = extend(host, select=second, loss=times_column("a/c", entropy_bonus()))
    select = whole.updates[0].select
    assert select.writes == {"a/b", "a/c"}
    batch = batch_of([[2]])
    found = select.apply(None, batch, None)
    assert found.extra["a/c"].tolist() == (2.0 * batch.mask).tolist()


def selecting(*reads, writes="a/b", asks=()):
    return Select(lambda o, b, g: b, frozenset({writes}), frozenset(reads), frozenset(asks))


def test_a_selection_that_reads_an_unwritten_column_is_rejected():
    host = GRPO().build()
    with pytest.raises(CompositionError, match="nothing writes 'a/c'"):
        extend(host, select=selecting("a/c"))
    written = stateless(lambda batch: batch, writes={"a/c"})
    assert extend(host, credit=written, select=selecting("a/c")).updates[0].select.reads == {"a/c"}
    assert extend(GRPO(kl_coef=0.1).build(), select=selecting(REFERENCE))
    with pytest.raises(CompositionError, match=REFERENCE):
        extend(host, select=selecting(REFERENCE))


def test_a_selection_cannot_read_its_own_columns_or_those_of_a_later_selection():
    host = GRPO().build()
    with pytest.raises(CompositionError, match="nothing writes 'a/b'"):
        extend(host, select=selecting("a/b", writes="a/b"))
    with pytest.raises(CompositionError, match="nothing writes 'a/c'"):
        extend(host, select=both(selecting("a/c"), selecting(writes="a/c")))
    assert extend(host, select=both(selecting(writes="a/c"), selecting("a/c")))


def test_a_selection_needs_a_loss_that_requests_its_reductions():
    """SIREN's peaks without its regulariser; credit alone does not compute them in the update."""
    nucleus = nucleus_entropy(NUCLEUS, 0.8)
    with pytest.raises(CompositionError, match="no loss asks for 'siren/nucleus'"):
        extend(
            GRPO().build(),
            credit=anchored(0.8, "episode", nucleus),
            select=both(selecting(), find_peaks(0.8, "episode")),
        )


def test_batches_can_be_joined_split_and_saved_in_a_checkpoint():
    one, other = collate(made_up(0, MIXED)), collate(made_up(1, MIXED))
    one = one.with_(**{"a/b": torch.ones(len(one.mask))})
    both = concatenate(one, other)
    assert len(both) == len(one) + len(other) and both.group.max() == 5
    assert both.extra["a/b"].sum() == len(one.mask)
    second = both.only(torch.arange(24) >= 12)
    for name, column in pack(other).items():
        offset = 3 if name == "group" else 0
        assert column.equal(getattr(second, name) - offset if offset else getattr(second, name))
    again = unpack(pack(other))
    assert all(getattr(again, name).equal(column) for name, column in pack(other).items())
    assert len(both.only(torch.zeros(24, dtype=torch.bool)).mask) == 0


def test_the_next_turn_is_in_the_same_episode_and_the_last_turn_has_none():
    batch = batch_of([[1, 2], [3], [1, 1, 1]])
    value = torch.tensor([1.0, 2, 3, 4, 5, 6])
    assert turns_of(batch).following(value).tolist() == [2, 0, 0, 5, 6, 0]


# ---- rewards -----------------------------------------------------------------------------------


def test_a_malformed_turn_is_penalised_in_turn_reward_and_return():
    batch = collate(made_up(0, MIXED))
    found, _ = malformed_penalty(0.1).apply(batch, (), 0)
    turns = turns_of(batch)
    bad = ~turns.first(batch.parsed)
    assert bad.any()
    lost = turns.first(batch.turn_reward - found.turn_reward)
    assert lost[bad].tolist() == near([0.1] * int(bad.sum())) and lost[~bad].abs().max() == 0
    assert (batch.reward - found.reward).tolist() == near(
        turns.per_episode(0.1 * bad.float(), batch).tolist()
    )


def test_the_length_penalty_is_charged_to_the_last_turn():
    batch = batch_of([[3, 5], [2]], reward=[1, 1], turn_reward=[0, 1, 1])
    found, _ = overlong_penalty(10, 4).apply(batch, (), 0)
    assert found.reward.tolist() == near([0.5, 1.0])
    assert turns_of(batch).first(found.turn_reward).tolist() == near([0, 0.5, 1])


# ---- terms under weights of their own ----------------------------------------------------------


def test_a_term_with_its_own_weights_reaches_episodes_that_the_main_term_leaves_out():
    learner = learner_for(GRPO())
    batch = learner.observe(collate(made_up(0, [*MIXED, TIED])))
    credit = chain(group_advantage(), mean_over_episodes(), side_weights(TURNS))
    batch, _ = credit.apply(batch, credit.init(), 0)
    tied = batch.mask & (batch.group[batch.episode_of_token] == 3)
    assert batch.weight[tied].sum() == 0 and batch.extra[TURNS][tied].sum() > 0.1
    only = Update(loss=weighted_by(TURNS, entropy_bonus()))
    metrics = learner.update(batch, only, 0)
    expected = -float((batch.entropy * batch.extra[TURNS]).sum())
    assert metrics["update/loss"] == near(expected, 1e-4)


def test_a_weighted_sum_is_the_sum_of_its_terms():
    def loss(update):
        learner = learner_for(GRPO())
        batch = learner.observe(collate(made_up(0, MIXED)))
        credit = chain(group_advantage(), mean_over_episodes(), side_weights(TURNS))
        batch, _ = credit.apply(batch, credit.init(), 0)
        learner.gradient(batch, Update(loss=update), 0)
        return torch.cat([p.grad.flatten() for p in learner.policy.model.parameters()])

    main, side = policy_gradient(), scale(0.3, weighted_by(TURNS, entropy_bonus()))
    host = Algorithm(
        collect=independent(2), credit=side_weights(TURNS), updates=(Update(loss=main),)
    )
    both = extend(host, loss=side).updates[0].loss
    assert torch.allclose(loss(both), loss(main) + loss(side), atol=1e-6)
    assert loss(side).abs().max() > 1e-5


def test_dr_bots_released_mean_is_over_turns_in_units_of_ten_for_a_win():
    batch = batch_of([[1, 1, 1], [1]], reward=[0.0, 1.0], group=[0, 0])
    credit = DrBoT.released().build().credit
    found, _ = credit.apply(batch, credit.init(), 0)
    assert found.advantage[found.mask].tolist() == near([-2.5] * 3 + [7.5])


@pytest.mark.parametrize("kind", [DrGRPO, DrBoT])
def test_the_constant_divides_the_token_sum_of_each_episode_or_of_the_batch(kind):
    batch = batch_of([[3, 2], [1]], reward=[0.0, 1.0], group=[0, 0])

    def slopes(per, rows, run=DEFAULT_RUN, **how):
        algorithm = kind(token_sum_per=per, **how).build(run)
        found, _ = algorithm.credit.apply(batch, algorithm.credit.init(), 0)
        part = found.rows(torch.tensor(rows))
        logprob = part.logprob.clone().requires_grad_()
        loss = minibatch_loss(algorithm.updates[0].loss, Outputs(logprob, part.entropy), part)
        (slope,) = torch.autograd.grad(loss, logprob)
        return (slope / -part.advantage)[part.mask].tolist()

    assert slopes("episode", [0, 1], divisor_tokens=10) == near([1 / 20] * 6)
    assert slopes("batch", [0, 1], divisor_tokens=10) == near([1 / 10] * 6)
    # With one episode per minibatch, the short and the long one have the same divisor.
    assert slopes("episode", [0], divisor_tokens=10) == near([1 / 10] * 5)
    assert slopes("episode", [1], divisor_tokens=10) == near([1 / 10])
    run = RunInfo(max_turns=5, max_completion_tokens=8)
    assert slopes("episode", [1], run) == near([1 / 40])
    assert slopes("batch", [1], run) == near([1 / 8])
    assert (kind().token_sum_per, kind.paper().token_sum_per, kind.released().token_sum_per) == (
        "episode",
        "episode",
        "batch",
    )


def test_tokens_left_out_of_a_token_sum_do_not_change_the_others():
    batch = batch_of([[3, 2], [1]], reward=[0.0, 1.0], group=[0, 0])
    batch = batch.with_(advantage=batch.mask.double())
    loss = token_sum(policy_gradient(), 10)

    def slope(batch):
        logprob = batch.logprob.clone().requires_grad_()
        value = minibatch_loss(loss, Outputs(logprob, batch.entropy), batch)
        return torch.autograd.grad(value, logprob)[0]

    kept = keep_only(lambda batch: batch.turn == 0).apply(batch, (), 0)[0]
    inside = batch.turn == 0
    assert slope(kept)[inside].tolist() == near(slope(batch)[inside].tolist())
    assert slope(kept)[~inside].abs().max() == 0


def test_the_gradient_norm_limit_is_scaled_to_a_token_sum():
    batch = batch_of([[3, 2], [1]])
    assert loss_scale(policy_gradient(), batch) == 1
    assert loss_scale(token_sum(policy_gradient(), 10), batch) == near(6 / 20)
    assert loss_scale(token_sum(policy_gradient(), 10, per_episode=False), batch) == near(6 / 10)


def test_an_unwritten_weight_column_is_rejected():
    side = weighted_by(TURNS, entropy_bonus())
    with pytest.raises(CompositionError, match="weight/turns"):
        Algorithm(collect=independent(2), credit=group_advantage(), updates=(Update(loss=side),))


@pytest.mark.parametrize("loss", [value_error(None, RETURN), kl_to_reference()])
def test_a_missing_critic_or_reference_is_rejected(loss):
    credit = stateless(lambda batch: batch, writes={RETURN})
    with pytest.raises(CompositionError, match=r"critic/value|reference/logprob"):
        Algorithm(collect=independent(2), credit=credit, updates=(Update(loss=loss),))


# ---- critic, reference, selection --------------------------------------------------------------


def test_a_critic_starts_at_zero_and_learns_the_return_of_an_episode():
    learner = learner_for(PPO(critic_learning_rate=3e-2, minibatches=1))
    before = [p.clone() for p in learner.critic.network.model.parameters()]
    credit = gae(1.0, 1.0)
    update = Update(loss=value_error(None, RETURN))
    groups = made_up(0, MIXED)
    first = learner.observe(collate(groups))
    assert first.extra[VALUE].abs().max() == 0
    losses = []
    for step in range(25):
        batch, _ = credit.apply(learner.observe(collate(groups)), (), step)
        losses.append(learner.update(batch, update, step)["update/loss"])
    assert losses[-1] < 0.3 * losses[0]
    now = learner.observe(collate(groups))
    won = now.reward[now.episode_of_token] > 0
    values = now.extra[VALUE]
    assert values[now.mask & won].mean() > values[now.mask & ~won].mean() + 0.3
    after = learner.critic.network.model.parameters()
    assert any(not a.equal(b) for a, b in zip(before, after, strict=True))


def test_the_critic_loss_does_not_change_the_policy():
    learner = learner_for(PPO(minibatches=1))
    before = [p.clone() for p in learner.policy.model.parameters()]
    batch, _ = gae().apply(learner.observe(collate(made_up(0, MIXED))), (), 0)
    learner.update(batch, Update(loss=value_error(0.5, RETURN)), 0)
    pairs = zip(before, learner.policy.model.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_gae_bootstraps_only_truncated_episodes():
    batch = batch_of([[2], [2]], reward=[0, 0])
    batch = batch.with_(
        truncated=torch.tensor([True, False]), **{VALUE: written(batch, [0.5, 0.7, 0.5, 0.7])}
    )

    def found(bootstrap):
        credit = gae(1.0, 1.0, bootstrap=bootstrap)
        return credit.apply(batch, (), 0)[0].advantage[batch.mask].tolist()

    assert found(False) == near([-0.5, -0.7, -0.5, -0.7])
    assert found(True) == near([0.2, 0.0, -0.5, -0.7])


def test_the_released_gae_gives_every_turn_the_whole_return():
    batch = batch_of([[1, 2]], reward=[1.0], turn_reward=[0.0, 1.0])
    batch = batch.with_(**{VALUE: written(batch, [0.2, 0.4, 0.5])})
    found, _ = gae(1.0, 1.0, per_turn=True).apply(batch, (), 0)
    assert found.advantage[batch.mask].tolist() == near([0.8, 0.6, 0.5])
    late, _ = gae(1.0, 0.0).apply(batch, (), 0)
    assert late.advantage[batch.mask].tolist() == near([0.2, 0.1, 0.5])


def test_the_reference_model_is_unchanged_by_policy_updates():
    learner = learner_for(GRPO(kl_coef=0.1, minibatches=1))
    algorithm = GRPO(kl_coef=0.1, minibatches=1).build()
    start = learner.observe(collate(made_up(0, MIXED)))
    assert torch.allclose(start.extra[REFERENCE], start.logprob, atol=1e-6)
    batch, _ = algorithm.credit.apply(start, algorithm.credit.init(), 0)
    learner.update(batch, algorithm.updates[0], 0)
    after = learner.observe(collate(made_up(0, MIXED)))
    assert after.extra[REFERENCE].equal(start.extra[REFERENCE])
    assert not torch.allclose(after.logprob, start.logprob, atol=1e-4)


def test_a_learner_with_critic_and_reference_resumes_where_it_was():
    config = PPO(kl_coef=0.1)
    algorithm = config.build()

    def step(learner, number):
        batch = learner.observe(collate(made_up(number, MIXED)))
        batch, _ = algorithm.credit.apply(batch, algorithm.credit.init(), number)
        return learner.update(batch, algorithm.updates[0], number)

    one = learner_for(config)
    step(one, 0)
    twin = learner_for(config)
    twin.policy.model.load_state_dict(one.policy.model.state_dict())
    twin.restore(copy.deepcopy(one.state()))
    assert step(one, 1) == step(twin, 1)


def test_selections_read_the_whole_minibatch_and_the_current_policy():
    learner = learner_for(GRPO())
    learner.settings = replace(learner.settings, microbatch_tokens=1)
    seen = []

    def apply(outputs, batch, generator):
        seen.append((len(batch), outputs.logprob.clone()))
        return batch.with_(**{"test/half": 0.5 * batch.mask})

    select = Select(apply, frozenset({"test/half"}))
    update = Update(loss=times_column("test/half", policy_gradient()), minibatches=2, select=select)
    credit = chain(group_advantage(), mean_over_episodes())
    batch, _ = credit.apply(learner.observe(collate(made_up(0, MIXED))), credit.init(), 0)
    Algorithm(collect=independent(2), credit=credit, updates=(update,))
    learner.update(batch, update, 0)
    assert sum(rows for rows, _ in seen) == len(batch) and len(seen) == 2
    second = batch.logprob[batch.mask].sort().values
    now = torch.cat([logprob for _, logprob in seen])
    assert not torch.allclose(now[now != 0].sort().values, second, atol=1e-4)


def test_a_non_finite_loss_stops_the_run_before_the_step():
    learner = learner_for(GRPO())
    batch = learner.observe(collate(made_up(0, MIXED)))
    before = [p.clone() for p in learner.policy.model.parameters()]
    bad = Update(loss=Loss(lambda outputs, batch, step: outputs.logprob * math.nan))
    with pytest.raises(TrainingError, match="the step was not taken"):
        learner.update(batch, bad, 7)
    pairs = zip(before, learner.policy.model.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_a_learner_works_with_one_algorithm_only():
    learner = learner_for(PPO())
    with pytest.raises(TrainingError, match="another algorithm"):
        learner.attach(PPO().build())
    assert learner_for(GRPO()).critic is None
    assert CriticPlan().learning_rate > 0


# ---- engine and trainer ------------------------------------------------------------------------


def test_importance_is_per_token_turn_or_episode_and_capped():
    batch = batch_of([[1, 2], [1]])
    batch = batch.with_(
        logprob=written(batch, [-1, -1, -1, -1]),
        logprob_sampled=written(batch, [-1.1, -0.9, -1.3, -3]),
    )
    for per, gaps in {
        "token": [0.1, -0.1, 0.3, 2],
        "turn": [0.1, 0.2, 0.2, 2],
        "episode": [0.3, 0.3, 0.3, 2],
    }.items():
        expected = [min(math.exp(gap), 2.0) for gap in gaps]
        assert importance(batch, per=per)[batch.mask].tolist() == near(expected), per
    found, _ = correct_sampling().apply(batch.with_(advantage=2.0 * batch.mask), (), 0)
    assert found.advantage.tolist() == near((2 * importance(batch)).tolist())


MASKED = {
    "token": [1.105171, 0.904837, 1.349859, 0.0, 0.0],
    "turn": [1.105171, 1.221403, 1.221403, 0.0, 0.0],
    "episode": [1.349859, 1.349859, 1.349859, 0.0, 0.0],
}
TRUNCATED = {
    "token": [1.105171, 0.904837, 1.349859, 2.0, 0.367879],
    "turn": [1.105171, 1.221403, 1.221403, 2.0, 0.367879],
    "episode": [1.349859, 1.349859, 1.349859, 2.0, 0.367879],
}


@pytest.mark.parametrize("per", MASKED)
@pytest.mark.parametrize("beyond", ["mask", "truncate"])
def test_importance_out_of_bounds_is_capped_or_zero_and_so_is_its_gradient(per, beyond):
    """Ratios exp(0.1), exp(-0.1), exp(0.3), exp(2) and exp(-1), in five turns of three episodes."""
    batch = batch_of([[1, 2], [1], [1]])
    batch = batch.with_(
        logprob=written(batch, [-1, -1, -1, -1, -2]),
        logprob_sampled=written(batch, [-1.1, -0.9, -1.3, -3, -1]),
        advantage=written(batch, [1, -1, 1, 1, -1]),
    )
    expected = {"mask": MASKED, "truncate": TRUNCATED}[beyond][per]
    credit = correct_sampling(per=per, low=0.5, cap=2.0, beyond=beyond)
    corrected, _ = credit.apply(batch, (), 0)
    logprob = corrected.logprob.clone().requires_grad_()
    policy_gradient(0.2).apply(Outputs(logprob, corrected.entropy), corrected, 0).sum().backward()
    # Before the update the ratio of the surrogate is 1.
    signs = [1, -1, 1, 1, -1]
    gradient = [-sign * weight for sign, weight in zip(signs, expected, strict=True)]
    assert logprob.grad[batch.mask].tolist() == near(gradient)


def test_a_run_stops_when_engine_and_trainer_disagree():
    batch = batch_of([[2]])
    batch = batch.with_(
        logprob=written(batch, [-1, -1]), logprob_sampled=written(batch, [-1, -1.2])
    )
    stop_on_mismatch(0.11).apply(batch, (), 0)
    with pytest.raises(TrainingError, match=r"differ by 0\.1 nats .* at most 0\.05"):
        stop_on_mismatch(0.05).apply(batch, (), 0)
    with pytest.raises(TrainingError, match="differ by nan"):
        stop_on_mismatch(0.05).apply(batch.with_(logprob=written(batch, [math.nan, 0])), (), 0)


# ---- invalid values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: GRPO(group_size=1), "GRPO.group_size is 1, expected at least 2"),
        (lambda: GRPO(clip_ratio_low=1.5), "GRPO.clip_ratio_low is 1.5, expected 0 to 1"),
        (lambda: GRPO(dual_clip=1.0), "GRPO.dual_clip is 1.0, expected a number above 1"),
        (lambda: GRPO(entropy_coef=-0.1), "GRPO.entropy_coef is -0.1, expected at least 0"),
        (lambda: GRPO(kl_coef=math.nan), "GRPO.kl_coef is nan, expected at least 0"),
        (lambda: PEAR(alpha=math.nan), "PEAR.alpha is nan, expected a finite number"),
        (lambda: AEPO(beam_size=1), "AEPO.beam_size is 1, expected at least 2"),
        (lambda: ARPO(beam_size=1), "ARPO.beam_size is 1, expected at least 2"),
        (lambda: AEPO(base=GRPO(group_size=1)), "GRPO.group_size is 1, expected at least 2"),
        (lambda: ARPO(base=GRPO(group_size=1), initial_rollouts=1), "GRPO.group_size is 1"),
        (
            lambda: ETMR(base=GRPO(group_size=1), initial_rollouts=1, peaks_per_root=0),
            "GRPO.group_size is 1",
        ),
        (
            lambda: EPO(kappa_low=2.0),
            r"EPO.kappa_low is 2.0, expected less than kappa_high \(1.5\)",
        ),
        (lambda: ReinforcePPBaseline(group_size=1), "ReinforcePPBaseline.group_size is 1"),
    ],
)
def test_an_impossible_value_is_one_clear_line(make, expected):
    with pytest.raises(ImpossibleValue, match=expected) as error:
        make()
    assert "\n" not in str(error.value)


SIGNED = {
    "PEAR.alpha",
    "COPO.gate_midpoint",
    "EMPO.entropy_low",
    "ClipCov.clip_cov_low",
    "SPEAR.clip_cov_low",
}
"""Numbers that mean something below 0."""
UNBOUNDED = {"ClipCov.clip_cov_high", "SPEAR.clip_cov_high"}
"""Numbers that mean something at infinity."""


@pytest.mark.parametrize("name", sorted(plugins.algorithms()))
def test_negative_and_non_finite_coefficients_are_rejected(name):
    config = plugins.algorithm(name)()
    refused = 0
    for field in fields(config):
        if "float" not in field.type.split(" | "):
            continue
        known = f"{type(config).__name__}.{field.name}"
        for value, allowed in [(-0.5, SIGNED), (math.inf, UNBOUNDED), (math.nan, set())]:
            if known in allowed:
                assert getattr(replace(config, **{field.name: value}), field.name) == value  # type: ignore[type-var]
                continue
            with pytest.raises(ImpossibleValue, match=rf"{type(config).__name__}\."):
                replace(config, **{field.name: value})  # type: ignore[type-var]
            refused += 1
    assert refused or not any("float" in field.type for field in fields(config))


def test_valid_and_unset_values_pass_the_bounds_check():
    @dataclass
    class Some:
        a: float = 1.0
        b: float | None = None

    at_least(1, Some(), "a", "b")
    above(0, Some(), "a", "b")
    within(0, 1, Some(), "a", "b")
    finite(Some(a=-1.0), "a", "b")
    ordered(Some(a=0.5, b=1.0), "a", "b")


# ---- the contract itself -----------------------------------------------------------------------


def broken(credit):
    """A configuration class with the given credit."""

    @dataclass(frozen=True, kw_only=True)
    class Broken(GRPO):
        def build(self, run=None):
            return replace(GRPO().build(), credit=credit)

        @classmethod
        def paper(cls):
            return cls()

        @classmethod
        def released(cls):
            return cls()

    return Broken


def per_row(batch):
    """A statistic over rows, which the contract check must report."""
    count = torch.bincount(batch.row).float()
    return batch.with_(advantage=batch.advantage * count[batch.row])


def by_position(batch):
    return batch.with_(advantage=batch.advantage * torch.arange(len(batch.mask)))


def unmasked(batch):
    return batch.with_(advantage=batch.advantage * batch.entropy.mean())


def not_a_number(batch):
    return batch.with_(advantage=batch.advantage / (batch.advantage != 0).sum())


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (per_row, "growing and windowed"),
        (by_position, "order of rows"),
        (unmasked, "off the mask"),
        (not_a_number, "one episode: credit is not finite"),
        (lambda batch: batch.with_(advantage=batch.advantage + 1), "multiply by batch.mask"),
        (lambda batch: batch.with_(weight=2 * batch.weight), "weights sum to 2"),
    ],
)
def test_the_contract_check_reports_a_faulty_transform(transform, expected):
    credit = chain(group_advantage(), mean_over_episodes(), stateless(transform))
    with pytest.raises(AssertionError, match=expected):
        check_algorithm(broken(credit))


def updating(select=None, loss=None):
    """A configuration class with the given selection or loss in its first update."""
    host = GRPO().build()
    first = replace(host.updates[0], select=select, loss=loss or host.updates[0].loss)

    class Updating(broken(host.credit)):
        def build(self, run=None):
            return replace(host, updates=(first,))

    return Updating


def writes(column):
    """A selection that writes the result of a function of the batch."""
    return Select(
        lambda outputs, batch, generator: batch.with_(**{"test/column": column(batch)}),
        frozenset({"test/column"}),
    )


def draws(count):
    """A selection that samples as many tokens as a function of the batch returns."""

    def apply(outputs, batch, generator):
        at = batch.mask.nonzero().squeeze(-1)
        drawn = at[torch.randperm(len(at), generator=generator)[: count(batch)]]
        column = batch.mask.float().index_fill(0, drawn, 0.0)
        return batch.with_(**{"test/column": column})

    return Select(apply, frozenset({"test/column"}))


def before(batch):
    """Entropy of the previous token, which may be a prompt token."""
    return batch.entropy.roll(1)


@pytest.mark.parametrize(
    ("select", "loss", "expected"),
    [
        (writes(lambda b: b.mask * torch.arange(len(b.mask))), None, "'test/column'.* order"),
        (writes(lambda b: b.mask * b.logprob.mean()), None, "'test/column'.* off the mask"),
        (draws(lambda b: 1 + int(b.episode_of_token[0])), None, "'test/column'.* draws as many"),
        (
            None,
            Loss(lambda o, b, step: -b.advantage * o.logprob * before(b)),
            "gradient of update 'update' depends on values off the mask",
        ),
        (
            None,
            Loss(lambda o, b, step: -b.advantage * o.logprob * torch.arange(len(b.mask))),
            "gradient of update 'update' depends on the order of rows",
        ),
    ],
)
def test_the_contract_check_reports_a_faulty_update(select, loss, expected):
    with pytest.raises(AssertionError, match=expected):
        check_algorithm(updating(select, loss))


def test_the_contract_check_accepts_an_update_that_samples_tokens():
    loss = times_column("test/column", policy_gradient())
    check_algorithm(updating(draws(lambda batch: 5), loss))
