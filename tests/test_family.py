"""Methods that choose or weigh tokens: golden numbers and gradients, and the reductions."""

import json
import math

import pytest
import torch
from family_fixture import GOLDEN, fixture, flat, near

from agentgym.losses.compose import Outputs, add, scale, times_column
from agentgym.losses.reductions import expected_tilt, nucleus_entropy, tempered_logprob
from agentgym.losses.surrogates import clipped_tokens, policy_gradient, reinforce
from agentgym.testing.batches import batch_of, written
from agentgym_trainers.clipcov import covariance, spare_covariant
from agentgym_trainers.discriminator import (
    EXPECTED,
    KEPT,
    above_the_batch,
    drop,
    near_the_policy,
    tilt,
)
from agentgym_trainers.klcov import HELD, KLCov, distance, hold_covariant, unclipped
from agentgym_trainers.steer import STEER, WEIGHT, decaying, effect, linear, weigh_by_effect


def choose(select, batch, outputs, seed=0):
    return select.apply(
        Outputs(*(x.detach() for x in outputs[:2])), batch, torch.Generator().manual_seed(seed)
    )


def mean_and_slope(loss, batch, outputs):
    """Mean over the tokens, and the derivative by each token's log-probability."""
    value = loss.apply(outputs, batch, 0)[batch.mask]
    (slope,) = torch.autograd.grad(value.sum(), outputs.logprob, retain_graph=True)
    return float(value.detach().mean()), slope[batch.mask].tolist()


# ---- Clip-Cov and KL-Cov -----------------------------------------------------------------------


def test_w3_covariance_is_taken_over_all_rows_at_once():
    batch, outputs = fixture()
    found = covariance(outputs, batch)[batch.mask].tolist()
    assert found == near(flat(GOLDEN["W3_cov"]["cov"]))
    for row in range(2):
        only = batch.rows(torch.tensor([row]))
        alone = Outputs(outputs.logprob[batch.row == row], outputs.entropy[batch.row == row])
        assert covariance(alone, only).abs().max() < 1e-12


def test_w3_covariance_scales_with_the_advantage_and_ignores_a_constant_shift():
    batch, outputs = fixture()
    found = covariance(outputs, batch).detach()
    for factor in (-2.0, 0.1, 7.0):
        other = batch.with_(advantage=factor * batch.advantage)
        assert torch.allclose(covariance(outputs, other), factor * found, atol=1e-12)
        moved = batch.with_(advantage=batch.advantage + factor)
        assert torch.allclose(covariance(outputs, moved), found, atol=1e-12)
    assert found.abs().max() > 0.9


def test_w3_clip_cov_loss_without_candidates_and_with_all_candidates_dropped():
    golden = GOLDEN["W3_clipcov"]
    batch, outputs = fixture()
    value = policy_gradient(1.0, 1.0).apply(outputs, batch, 0)
    assert value[batch.mask].tolist() == near(flat(golden["pgloss"]))
    clipped = clipped_tokens(outputs, batch, 1.0, 1.0)
    assert clipped[batch.mask].tolist() == flat(golden["ppo_clipped"])
    loss = times_column("clipcov/kept", policy_gradient(1.0, 1.0))
    for share, low, name in [
        (0.3, 99.0, "loss_none"),
        (1.0, 0.3, "loss_all_cands_dropped"),
    ]:
        select = spare_covariant(share, low, 100.0, clip=1.0, clip_high=1.0)
        chosen = choose(select, batch, outputs)
        assert mean_and_slope(loss, chosen, outputs)[0] == near(golden[name])
    dropped = (chosen.extra["clipcov/kept"] == 0)[batch.mask].tolist()
    assert dropped == flat(golden["cand"]) and golden["loss_none"] == near(-0.626302)


def test_w3_clip_cov_drops_two_of_its_three_candidates():
    batch, outputs = fixture()
    select = spare_covariant(0.3, 0.3, 2.0, clip=1.0, clip_high=1.0)
    seen = set()
    for seed in range(20):
        loss = times_column("clipcov/kept", policy_gradient(1.0, 1.0))
        chosen = choose(select, batch, outputs, seed)
        seen.add(round(mean_and_slope(loss, chosen, outputs)[0], 6))
    assert seen == {-0.274656, -0.522692, -0.531482}


def test_w3_kl_cov():
    golden = GOLDEN["W3_klcov"]
    batch, outputs = fixture()
    batch = choose(hold_covariant(0.3), batch, outputs)
    held = batch.extra[HELD][batch.mask].nonzero().squeeze(-1).tolist()
    assert held == sorted(golden["top_flat"])
    mean, slope = mean_and_slope(KLCov().build().updates[0].loss, batch, outputs)
    assert mean == near(golden["token_mean"]) and slope == near(flat(golden["grad"]))
    assert mean_and_slope(unclipped(), batch, outputs)[0] == near(golden["without"])


def test_kl_cov_has_the_plain_gradient_while_the_policy_is_unchanged():
    batch, outputs = fixture()
    batch = batch.with_(logprob=outputs.logprob.detach(), **{HELD: batch.mask.double()})
    loss = add(unclipped(), scale(9.0, times_column(HELD, distance())))
    assert mean_and_slope(loss, batch, outputs)[1] == near(
        (-batch.advantage[batch.mask]).tolist(), 1e-12
    )


def test_kl_cov_penalises_at_least_one_token():
    batch, outputs = fixture()
    assert choose(hold_covariant(1e-6), batch, outputs).extra[HELD].sum() == 1


# ---- STEER -------------------------------------------------------------------------------------


def test_w4_entropy_effect_and_both_weight_laws():
    golden = GOLDEN["W4_steer"]
    batch, outputs = fixture()
    omega = effect(outputs, batch).detach()
    assert omega[batch.mask].tolist() == near(flat(golden["omega"]))
    for law, weights, loss in [
        ("linear", "w_lin", "loss_lin"),
        ("decaying", "w_exp", "loss_exp"),
    ]:
        chosen = choose(weigh_by_effect(law, 0.8, 1.2), batch, outputs)
        assert chosen.extra[WEIGHT][batch.mask].tolist() == near(flat(golden[weights]))
        surrogate = STEER(weight_form=law).build().updates[0].loss
        assert mean_and_slope(surrogate, chosen, outputs)[0] == near(golden[loss])
    extreme = choose(weigh_by_effect("linear", 0.8, 1.2), batch, outputs)
    wide = times_column(WEIGHT, policy_gradient(0.99, 5.0))
    assert mean_and_slope(wide, extreme, outputs)[0] == near(-0.605973)
    assert mean_and_slope(policy_gradient(0.99, 5.0), batch, outputs)[0] == near(-0.664966)


def test_steer_the_papers_law_gives_no_effect_to_clipped_tokens():
    batch, outputs = fixture()
    chosen = choose(STEER.paper().build().updates[0].select, batch, outputs)
    weight = chosen.extra[WEIGHT][batch.mask]
    clipped_tokens = [1, 3, 5]
    assert weight[clipped_tokens].tolist() == near([1] * 3)
    all_ = choose(
        STEER(weight_form="relative", counted_tokens="all").build().updates[0].select,
        batch,
        outputs,
    )
    assert (all_.extra[WEIGHT][batch.mask][clipped_tokens] < 0.999).all()
    others = [0, 2, 4, 6]
    assert float(weight[others].min()) == near(0.8) and (weight[others] < 1).all()


def test_steer_equal_effects_give_equal_weights():
    alike = torch.full((3,), 0.4)
    assert linear(alike, 0.8, 1.2).tolist() == near([1.0] * 3)
    assert decaying(torch.zeros(3), 0.8, 1.2).tolist() == [1] * 3


def test_steer_weights_fall_with_the_effect_and_linear_weights_ignore_its_scale():
    omega = torch.linspace(0, 3, 9)
    for law in (linear, decaying):
        found = law(omega, 0.8, 1.2)
        assert (found.diff() <= 0).all() and 0.8 - 1e-6 <= found.min() <= found.max() <= 1.2
    assert torch.allclose(linear(7 * omega, 0.8, 1.2), linear(omega, 0.8, 1.2))


# ---- reductions over the vocabulary ------------------------------------------------------------

P0 = torch.tensor(GOLDEN["W0"]["p"], dtype=torch.float64)
EVERY = torch.arange(4)


def reduce(reduction, p=P0):
    return reduction.apply(p.log().expand(len(EVERY), -1), EVERY)


def test_w0_tilt_its_mean_under_the_policy_and_the_entropy_change_of_a_logit():
    golden = GOLDEN["W0"]
    batch = batch_of([[4]])
    entropy = -(P0 * P0.log()).sum()
    batch = batch.with_(
        logprob=written(batch, P0.log().tolist()), entropy=written(batch, [float(entropy)] * 4)
    )
    found = tilt(batch)[batch.mask]
    assert found.tolist() == near(golden["S"]) and float(found.sum()) == near(0)
    expected = reduce(expected_tilt("x"))
    assert expected.tolist() == near([golden["N"]] * 4)
    assert (expected - found).tolist() == near(golden["D"])
    assert float((P0 * (expected - found)).sum()) == near(0)
    for k in range(4):
        moved = (P0.log() + 1e-3 * torch.eye(4)[k]).softmax(-1)
        change = -(moved * moved.log()).sum() - entropy
        assert float(change) / 1e-3 == near(-float(found[k]), 2e-4)


def entropy_of(logits):
    logp = logits.log_softmax(-1)
    return float(-(logp.exp() * logp).sum())


def test_w0_a_policy_gradient_step_changes_entropy_by_mean_tilt_less_tilt():
    golden, eps = GOLDEN["W0"], 1e-3
    batch = batch_of([[1]])
    batch = batch.with_(advantage=written(batch, [1.0]))
    expected = float(reduce(expected_tilt("x"))[0])
    for k in range(4):
        logits = P0.log().requires_grad_()
        logprob = logits.log_softmax(-1)[k] * batch.mask.double()
        loss = reinforce().apply(Outputs(logprob, logprob), batch, 0).sum()
        (slope,) = torch.autograd.grad(loss, logits)
        change = entropy_of(P0.log() - eps * slope) - entropy_of(P0.log())
        chosen = batch.with_(
            logprob=written(batch, [float(P0[k].log())]),
            entropy=written(batch, [golden["H"]]),
        )
        predicted = eps * (expected - float(tilt(chosen).sum()))
        assert change == near(golden["dH_pg_exact"][k])
        assert predicted == near(golden["dH_pg_pred"][k])
        assert change / eps == near([-0.167935, 0.135244, 0.200323, 0.200323][k])
        assert change / eps == near(predicted / eps, 2e-4)


def test_w0_raising_a_logit_lowers_entropy_where_the_probability_is_above_exp_minus_h():
    golden = GOLDEN["W0"]
    batch = batch_of([[3]])
    probability = [
        0.99 * golden["sign_p_star"],
        golden["sign_p_star"],
        1.01 * golden["sign_p_star"],
    ]
    batch = batch.with_(
        logprob=written(batch, [math.log(p) for p in probability]),
        entropy=written(batch, [golden["H"]] * 3),
    )
    below, at, above = tilt(batch)[batch.mask].tolist()
    assert below < -1e-3 < at == near(0) and above > 1e-3


def test_w0_entropy_changes_by_minus_the_covariance_of_log_probability_and_step():
    golden = GOLDEN["W0"]["cov_identity"]
    token = [0, 0, 0, 0, 1, 1, 2, 3]  # as often as the policy draws each
    batch = batch_of([[8]])
    dz = torch.tensor(golden["dz"], dtype=torch.float64)
    batch = batch.with_(advantage=written(batch, dz[token].tolist()))
    logprob = written(batch, P0.log()[token].tolist())
    predicted = -float(covariance(Outputs(logprob, logprob), batch)[batch.mask].mean())
    change = entropy_of(P0.log() + dz) - entropy_of(P0.log())
    assert predicted == near(golden["minus_cov"]) and predicted == near(3.249e-5, 1e-8)
    assert change == near(golden["exact"]) and change == near(3.170e-5, 1e-8)


def test_w6_a_step_towards_a_warmer_distribution_raises_entropy():
    golden = GOLDEN["W6_dir"]
    for temperature, name, change in [(1.2, "hot", "dH_hot"), (0.8, "cold", "dH_cold")]:
        warm = reduce(tempered_logprob("x", temperature)).exp()
        assert warm.tolist() == near(golden[name])
        moved = (P0.log() + 0.01 * (warm - P0)).softmax(-1)
        entropy = -(moved * moved.log()).sum() + (P0 * P0.log()).sum()
        assert float(entropy) == near(golden[change])


@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.2])
def test_the_importance_weight_of_a_tempered_sample_averages_one(temperature):
    weight = (reduce(tempered_logprob("x", temperature)) - P0.log()).exp()
    assert float((P0 * weight).sum()) == near(1)


@pytest.mark.parametrize("name", GOLDEN["W8_topp"])
def test_w8_entropy_of_the_nucleus(name):
    golden = GOLDEN["W8_topp"][name]
    p = torch.tensor(json.loads(name), dtype=torch.float64)
    for inclusive, kind in [(False, "code"), (True, "inclusive")]:
        reduction = nucleus_entropy("x", 0.8, inclusive=inclusive)
        assert float(reduction.apply(p.log()[None], EVERY[:1])) == near(golden[kind][1])


@pytest.mark.parametrize(
    "reduction",
    [
        expected_tilt("x"),
        tempered_logprob("x", 1.2),
        nucleus_entropy("x", 0.6),
        nucleus_entropy("x", 0.6, inclusive=False),
    ],
)
def test_the_gradient_of_a_reduction_agrees_with_finite_differences(reduction):
    logits = torch.tensor([[1.0, 0.2, -0.5, 0.3], [2, -1, 0.1, 0.4]], dtype=torch.float64)

    def total(logits):
        return reduction.apply(logits.log_softmax(-1), EVERY[:2])

    assert torch.autograd.gradcheck(total, [logits.requires_grad_()], eps=1e-6, atol=1e-6)


def test_a_deterministic_distribution_has_zero_entropy_and_zero_gradient():
    """The exclusive nucleus is empty, the inclusive one a single token."""
    for inclusive in (False, True):
        logits = torch.tensor([[50.0, 0, 0, 0]], requires_grad=True)
        reduction = nucleus_entropy("x", 0.8, inclusive=inclusive)
        found = reduction.apply(logits.log_softmax(-1), EVERY[:1])
        found.sum().backward()
        assert float(found.detach()) == near(0) and logits.grad.abs().max() == near(0)


# ---- Clip_B and Clip_V -------------------------------------------------------------------------


def scored(advantage, expected=None):
    """A batch with these scores S: probability one half, and entropy chosen to give S."""
    batch = batch_of([[len(GOLDEN["W10_clipB"]["S"])]])
    logprob = written(batch, [math.log(0.5)] * 8)
    entropy = written(batch, [2 * s for s in GOLDEN["W10_clipB"]["S"]]) - logprob
    given = {EXPECTED: written(batch, expected)} if expected else {}
    return batch.with_(
        logprob=logprob, entropy=entropy, advantage=written(batch, advantage), **given
    )


def test_w10_clip_b():
    golden = GOLDEN["W10_clipB"]
    batch = scored(golden["A"])
    inside = tilt(batch)[batch.mask]
    assert inside.tolist() == near(golden["S"])
    assert float(inside.std(correction=0)) == near(golden["std"])
    for spread in (2.5, 0.5):
        assert above_the_batch(spread)(batch)[batch.mask].tolist() == golden["keep25"]
    assert above_the_batch(0.5)(batch.with_(advantage=-batch.advantage))[batch.mask].all()
    assert above_the_batch(1e9)(batch)[batch.mask].all()


def test_w10_clip_v():
    golden = GOLDEN["W10_clipV"]
    batch = scored(GOLDEN["W10_clipB"]["A"], golden["N"])
    for spread, most, name in [
        (0.3, 1.0, "keep_mu03_nocap"),
        (0.3, 1e-4, "keep_mu3_cap1e4"),
        (8.5, 1e-4, "keep_mu85"),
    ]:
        assert near_the_policy(spread, most)(batch)[batch.mask].tolist() == golden[name], name


@pytest.mark.parametrize("shrink", [True, False])
def test_clip_v_with_an_infinite_threshold_equals_its_base(shrink):
    batch = scored(GOLDEN["W10_clipB"]["A"], GOLDEN["W10_clipV"]["N"])
    assert host_of(batch, near_the_policy(math.inf, 1e-4), shrink) == host_of(batch)
    assert host_of(batch, near_the_policy(0.3, 1.0), shrink) != host_of(batch)


@pytest.mark.parametrize("where", [above_the_batch(0.01), near_the_policy(0.01, 1.0)])
def test_tokens_are_dropped_only_where_advantages_are_negative(where):
    """Advantages of 0 have no gradient, so dropping them in Clip_V changes nothing."""
    batch = scored(GOLDEN["W10_clipB"]["A"], GOLDEN["W10_clipV"]["N"])
    rewarded = batch.with_(advantage=batch.advantage.abs())
    assert host_of(batch, where, False) != host_of(batch)
    assert host_of(rewarded, where, True) == host_of(rewarded)
    partly = batch.with_(advantage=batch.advantage.clamp(min=0))
    assert host_of(partly, where, False) == host_of(partly)


def host_of(batch, where=None, shrink=True):
    """The weighted loss of each token and its slope, with or without dropped tokens."""
    surrogate = policy_gradient(0.2)
    if where is not None:
        dropping = drop(where, shrink=shrink)
        batch, surrogate = (
            dropping.apply(batch, dropping.init(), 0)[0],
            times_column(KEPT, surrogate),
        )
    leaf = batch.logprob.clone().requires_grad_()
    value = batch.weight * surrogate.apply(Outputs(leaf, leaf), batch, 0)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.tolist(), slope.tolist()


def test_clip_b_dropped_tokens_leave_the_mean_or_count_as_zero():
    batch = scored(GOLDEN["W10_clipB"]["A"])
    for shrink, weight in [(True, [1 / 7] * 7), (False, [1 / 8] * 7)]:
        dropping = drop(above_the_batch(2.5), shrink=shrink)
        found = dropping.apply(batch, dropping.init(), 0)[0]
        left = (found.weight * found.extra[KEPT])[batch.mask]
        assert left.tolist() == near([*weight[:4], 0, *weight[4:]])


# ---- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [unclipped(), times_column("test/column", distance())], ids=["unclipped", "distance"]
)
def test_the_gradient_agrees_with_finite_differences(loss):
    batch, outputs = fixture()
    batch = batch.with_(**{"test/column": written(batch, [0.3, -1, 2, 0.5, 1, 1, -2])})
    move = written(batch, [0.3, -0.2, 0.4, 0.1, -0.5, 0.25, -0.1])  # away from the kink at 0
    leaf = (batch.logprob + move).requires_grad_()

    def total(logprob):
        return loss.apply(Outputs(logprob, outputs.entropy), batch, 0)[batch.mask].sum()

    assert torch.autograd.gradcheck(total, [leaf], eps=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(total(leaf), leaf)
    assert slope.abs().max() > 1e-3 and math.isfinite(float(slope.sum()))
