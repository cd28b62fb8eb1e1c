"""Surrogates on the family's two episodes, and the core's methods with the family's numbers."""

import math

import pytest
import torch
from family_fixture import FIXTURE, GOLDEN, episodes, fixture, flat, near

from agentgym.batch.batch import episode_mean, token_mean
from agentgym.batch.turns import discounted_returns, turns_of
from agentgym.credit.advantages import standardise
from agentgym.credit.reward_shaping import overlong
from agentgym.credit.transforms import group_advantage
from agentgym.losses.compose import Loss, Outputs, add, minibatch_loss, scale, token_sum
from agentgym.losses.surrogates import (
    entropy_bonus,
    policy_gradient,
    policy_gradient_controlled,
    policy_gradient_kept,
)
from agentgym.testing.batches import batch_of, written
from agentgym_trainers.aepo import scale_by_entropy
from agentgym_trainers.cispo import clipped_weight
from agentgym_trainers.corridor import corridor, outside_indicator
from agentgym_trainers.curriculum import count_acts, fade, ramp
from agentgym_trainers.empg import centre_steps, rescale, reward_clarity, scale_by_confidence
from agentgym_trainers.forking import budget, released_probability
from agentgym_trainers.gspo import sequence_ratio


def value_and_slope(loss, batch=None):
    """Each token's loss, and its derivative by the token's log-probability."""
    _, outputs = fixture()
    batch = episodes() if batch is None else batch
    value = loss.apply(outputs, batch, 0)
    (slope,) = torch.autograd.grad(value.sum(), outputs.logprob)
    return value.detach()[batch.mask].tolist(), slope[batch.mask].tolist()


def mean(weight, value):
    return float(weight[weight > 0].double() @ torch.tensor(value, dtype=torch.float64))


# ---- the clip family ---------------------------------------------------------------------------


def test_w2_ppo_under_three_loss_aggregations():
    golden = GOLDEN["W2_ppo"]
    batch = episodes()
    value, slope = value_and_slope(policy_gradient(0.2, 0.28, dual_clip=10.0))
    assert value == near(flat(golden["loss"])) and slope == near(flat(golden["grad"]))
    assert mean(token_mean(batch.mask), value) == near(golden["token_mean"])
    assert mean(episode_mean(batch, batch.mask), value) == near(golden["smtm"])
    column = written(batch, value)
    given = Loss(lambda outputs, batch, step: column)
    weighted = batch.with_(weight=token_mean(batch.mask))
    summed = minibatch_loss(token_sum(given, 1), Outputs(column, column), weighted)
    assert float(summed) == near(golden["smts"])


@pytest.mark.parametrize("bound", [10.0, 3.0])
def test_a_dual_clip_bounds_the_loss_and_stops_the_gradient(bound):
    batch = batch_of([[1]])
    batch = batch.with_(advantage=written(batch, [-1.0]))
    logprob = written(batch, [math.log(20)]).requires_grad_()
    loss = policy_gradient(0.2, 0.28, dual_clip=bound)
    value = loss.apply(Outputs(logprob, logprob), batch, 0).sum()
    (slope,) = torch.autograd.grad(value, logprob)
    assert float(value.detach()) == bound and slope.abs().max() == 0


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("W5_gppo", policy_gradient_kept(0.2, 0.2, below=True)),
        ("W5_gppo", policy_gradient_controlled(0.2, 0.2, below=1.0, above=1.0)),
        ("W5_ce", policy_gradient_controlled(0.2, 0.2, below=0.5, above=1.0)),
        ("W5_ppo", policy_gradient_controlled(0.2, 0.2, below=0.0, above=0.0)),
    ],
)
def test_w5_clips_that_keep_a_gradient(name, loss):
    golden = GOLDEN[name]
    value, slope = value_and_slope(loss)
    assert value == near(flat(golden["loss"])) and slope == near(flat(golden["grad"]))
    assert sum(slope) / 7 == near(golden["token_mean_grad_sum"])


def test_ce_gppo_with_zero_coefficients_has_the_gradient_of_ppo_and_another_value():
    nothing = policy_gradient_controlled(0.2, 0.2, below=0.0, above=0.0)
    value, slope = value_and_slope(nothing)
    plain, same = value_and_slope(policy_gradient(0.2, 0.2))
    assert slope == near(same, 1e-12)
    clipped = [k for k in range(7) if same[k] == 0]
    assert clipped == [1, 3, 5] and all(value[k] == 0 != plain[k] for k in clipped)


@pytest.mark.parametrize("high", [0.2, 0.28])
def test_aepos_clip_has_the_gradient_of_ce_gppo_with_0_and_1(high):
    batch = episodes()
    advantage = batch.advantage * (1 + written(batch, [0, -3, 1, 2, -0.5, 1, -4]))
    for given in (batch, batch.with_(advantage=advantage), batch.with_(advantage=-advantage)):
        aepo = value_and_slope(policy_gradient_kept(0.2, high, below=False, dual_clip=3.0), given)
        ce = policy_gradient_controlled(0.2, high, below=0.0, above=1.0, dual_clip=3.0)
        assert value_and_slope(ce, given)[1] == near(aepo[1], 1e-12)
    assert aepo[0] != value_and_slope(ce, batch)[0]


def test_w5_cispo():
    golden = GOLDEN["W5_cispo"]
    value, slope = value_and_slope(clipped_weight(0.2, 0.28))
    assert value == near(flat(golden["loss"])) and slope == near(flat(golden["grad"]))
    assert sum(value) / 7 == near(golden["token_mean"])


def test_w5_gspo():
    golden = GOLDEN["W5_gspo"]
    batch = episodes()
    weight = episode_mean(batch, batch.mask)
    free, _ = value_and_slope(sequence_ratio(0.99, 9.0, turn=False))
    found = [-free[0] / 1.2, free[4] / 0.8]
    assert found == near(golden["s"])
    assert [math.log(s) for s in found] == near(golden["meanlogratio"])
    value, slope = value_and_slope(sequence_ratio(3e-4, 4e-4, turn=False))
    assert value == near(flat(golden["loss"])) and slope == near(flat(golden["grad"]))
    assert mean(weight, value) == near(golden["smtm"])
    loose, _ = value_and_slope(sequence_ratio(0.2, 0.5, turn=False))
    assert mean(weight, loose) == near(golden["loose_clip_.2_.5"]["smtm"])


def test_w5_agentic_aepo():
    golden = GOLDEN["W5_aepo_agentic"]
    batch = episodes()
    batch = batch.with_(entropy=written(batch, flat(FIXTURE["H"])))
    z = standardise(batch.entropy, batch, epsilon=1e-12)[batch.mask]
    assert (golden["mean"] + golden["std"] * z).tolist() == near(flat(FIXTURE["H"]), 2e-6)
    scaled = scale_by_entropy(0.2).apply(batch, (), 0)[0]
    assert scaled.advantage[batch.mask].tolist() == near(flat(golden["A2"]))
    value, slope = value_and_slope(
        policy_gradient_kept(0.2, 0.2, below=False, dual_clip=3.0), scaled
    )
    assert value == near(flat(golden["loss"])) and slope == near(flat(golden["grad"]))
    assert sum(value) / 7 == near(golden["token_mean"])


@pytest.mark.parametrize("case", GOLDEN["W5_aepo_branch"])
def test_w5_fork_decision_of_the_released_code(case):
    """The code raises its draw and forks at or above the threshold: the level is the last one."""
    draw, rise, streak = map(float, case.split(","))
    level, forks = GOLDEN["W5_aepo_branch"][case]

    def fork(threshold):
        return 1 - draw < released_probability(rise, int(streak), 0.2, threshold)

    assert fork(0.5) is forks
    assert fork(level - 1e-6) and not fork(level + 1e-6)


def test_w5_the_budget():
    for case, whole in GOLDEN["W5_aepo_budget"].items():
        n, first, later = map(float, case.split(","))
        assert budget(int(n), first, later, 0.5) == whole, case


# ---- the core's methods ------------------------------------------------------------------------


def test_w16_empg():
    golden = GOLDEN["W16_empg"]
    batch = batch_of([[1, 1], [1, 1]])
    batch = batch.with_(
        entropy=written(batch, [0.2, 0.6, 1, 0.4]), advantage=written(batch, [1.0, 1, -1, -1])
    )
    ones = batch.with_(advantage=batch.mask.double())

    def run(given, *transforms):
        for transform in transforms:
            given = transform.apply(given, (), 0)[0]
        return given.advantage[given.mask]

    scale, clarity, centre = scale_by_confidence(1.0), reward_clarity(1.0, 0.05), centre_steps()
    assert rescale(batch.entropy[batch.mask]).tolist() == near(golden["Hn"])
    assert run(ones, scale).tolist() == near(golden["g"])
    assert ((run(ones, clarity) - 1) / 0.05).tolist() == near(golden["f"])
    assert run(batch, scale, clarity).tolist() == near(golden["mod"])
    assert run(batch, scale, clarity, centre).tolist() == near(golden["final"])


def test_w17_epos_indicator():
    """Values on a bound are moved slightly inside: on the bound only rounding decides."""
    golden = GOLDEN["W17_epo"]
    batch = batch_of([[6]])
    batch = corridor(batch, torch.full((7,), 0.5, dtype=torch.float64), 0.8, 1.2)
    moved = [h + {0.4: 1e-9, 0.6: -1e-9}.get(h, 0.0) for h in golden["H"]]
    entropy = written(batch, moved)
    outputs = Outputs(entropy, entropy)
    found = scale(0.1, outside_indicator()).apply(outputs, batch, 0)[batch.mask]
    assert found.tolist() == near(golden["pen"])
    extra = scale(0.001, add(entropy_bonus(), scale(0.1, outside_indicator())))
    assert float(extra.apply(outputs, batch, 0)[batch.mask].mean()) == near(golden["L_extra"], 1e-9)


def test_w18_spears_schedules():
    golden = GOLDEN["W18_spear"]
    for name, schedule in {"replay_coef": ramp(100), "tool_coef": fade(200)}.items():
        assert {step: schedule(int(step)) for step in golden[name]} == near(golden[name])
    acts = torch.tensor([float(n) for n in golden["tool_r"]])
    assert count_acts(acts, acts > 0).tolist() == near(list(golden["tool_r"].values()))


def test_w19_groups_discounts_and_length():
    golden = GOLDEN["W19"]
    batch = batch_of([[1]] * 4, reward=[1, 0, 1, 0])
    found = group_advantage(unbiased=True).apply(batch, (), 0)[0].advantage
    assert found[batch.mask].tolist() == near(golden["grpo"])
    turns = turns_of(batch_of([[1, 1, 1]]))
    gain = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    assert discounted_returns(turns, gain, 0.95).tolist() == near(golden["disc"])
    length = torch.tensor([16.0, 17, 18, 20, 21])
    assert overlong(length, 20, 4).tolist() == near([0, -0.25, -0.5, -1, -1])
