"""Golden numbers of losses, schedules and branching, and the gradient of every loss term."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen2Config

from agentgym.batch.batch import REFERENCE, VALUE
from agentgym.credit.advantages import RETURN
from agentgym.credit.weights import TOKENS, TURNS, side_weights
from agentgym.engines.entropy import entropy_at_least
from agentgym.losses.compose import Outputs, add, scale, times_column, weighted_by
from agentgym.losses.surrogates import (
    entropy_bonus,
    kl_to_reference,
    negative_log_likelihood,
    policy_gradient,
    policy_gradient_controlled,
    policy_gradient_kept,
    reinforce,
    value_error,
)
from agentgym.models.policy import Policy
from agentgym.rollout.branching import BranchPoint
from agentgym.testing.batches import batch_of, written
from agentgym.types import Completion
from agentgym_trainers.aepo import scale_by_entropy
from agentgym_trainers.cispo import clipped_weight
from agentgym_trainers.clipcov import KEPT, covariance, spare_covariant
from agentgym_trainers.corridor import HIGH, LOW, corridor, outside, outside_indicator
from agentgym_trainers.epo import settle, two_pieces
from agentgym_trainers.forking import (
    budget,
    count_tasks,
    released_probability,
    rise,
    rising_probability,
    root_share,
    score,
    summed_entropy,
)
from agentgym_trainers.gspo import sequence_ratio
from agentgym_trainers.sapo import soft_gate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "core.json").read_text())


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


def tokens(ratios, advantages, turns=None):
    """A batch and outputs; the tokens have these ratios and advantages."""
    batch = batch_of([turns or [1] * len(ratios)])
    batch = batch.with_(
        advantage=written(batch, advantages), logprob=written(batch, [-1.0] * len(ratios))
    )
    logprob = written(batch, [math.log(r) - 1 for r in ratios]).requires_grad_()
    return batch, Outputs(logprob, torch.zeros_like(logprob))


def value_and_slope(loss, ratio, advantage):
    """The maximised value, and the coefficient of advantage times the score."""
    batch, outputs = tokens([ratio], [advantage])
    value = loss.apply(outputs, batch, 0)
    value[batch.mask].sum().backward()
    slope = -float(outputs.logprob.grad[batch.mask]) / advantage
    return -float(value[batch.mask].detach()), slope


# ---- G1: entropy -------------------------------------------------------------------------------


class Fixed(Policy):
    """A policy that always gives the same logits."""

    def __init__(self, logits, temperature=1.0):
        self.temperature = temperature
        self.model = SimpleNamespace(config=Qwen2Config(vocab_size=logits.shape[-1]))
        self.split = SimpleNamespace(logits=lambda hidden: logits.expand(len(hidden), -1))  # type: ignore[assignment]

    def _hidden(self, batch, forest, at):
        return torch.zeros(len(at), 1)


def test_g1_entropy_and_its_gradient():
    golden = GOLDEN["G1"]
    batch = batch_of([[1]])
    logits = torch.tensor(golden["logits"], requires_grad=True)
    entropy = Fixed(logits)(batch).entropy[batch.mask]
    entropy.sum().backward()
    assert float(entropy.detach()) == near(golden["H"])
    assert logits.grad.tolist() == near(golden["dH_dlogits"])
    assert float(logits.grad.sum()) == near(0)
    warm = Fixed(logits.detach(), 2.0)(batch)
    assert float(warm.entropy[batch.mask]) == near(golden["H_temp2"])
    probability = float(Fixed(logits.detach())(batch).logprob[batch.mask].exp())
    assert probability == near(golden["p"][1])


def test_g1_top_k_entropy_is_full_entropy_less_the_estimate_for_the_rest():
    """The engine has only the top k: its estimate for the rest is subtracted again."""
    golden = GOLDEN["G1"]
    top = golden["p"][:2]
    rest = 1 - sum(top)
    found = entropy_at_least(math.log(p) for p in top) + rest * math.log(rest)
    assert found == near(golden["top2_trunc"])


def test_g1b_the_mean_squared_score_is_one_less_the_sum_of_squares():
    golden = GOLDEN["G1b_prop1"]
    logits = torch.tensor(golden["p"], dtype=torch.float64).log().requires_grad_()
    norms = []
    for token in range(3):
        batch = batch_of([[1]])
        batch = batch.with_(tokens=torch.full_like(batch.tokens, token))
        (score,) = torch.autograd.grad(Fixed(logits)(batch).logprob[batch.mask].sum(), logits)
        norms.append(float(score.square().sum()))
    mean = float(np.dot(golden["p"], norms))
    assert mean == near(golden["E_score_norm2"])
    assert golden["E_score_norm2"] == near(golden["one_minus_sum_p2"])


# ---- G4: clips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN["G4"], ids=lambda c: f"A{c['A']:+.0f}_r{c['delta']}")
def test_g4_the_clip_family(case):
    at = case["delta"], case["A"]
    ppo = policy_gradient(0.2, 0.28, dual_clip=3.0)
    aepo = policy_gradient_kept(0.2, 0.28, below=False, dual_clip=3.0)
    gppo = policy_gradient_kept(0.2, 0.28, below=True, dual_clip=3.0)
    assert value_and_slope(ppo, *at) == near((case["ppo_val"], case["ppo_F"]))
    assert value_and_slope(aepo, *at) == near((case["aepo_val"], case["aepo_F"]))
    assert value_and_slope(gppo, *at) == near((case["gppo_val"], case["gppo_F"]))
    assert value_and_slope(clipped_weight(0.2, 0.28), *at)[1] == near(case["cispo_F"])
    assert value_and_slope(soft_gate(1.0, 1.05), *at)[1] == near(case["sapo_F"])


def test_g4b_gspo_has_one_ratio_per_sequence():
    golden = GOLDEN["G4b_gspo"]
    ratios = [math.exp(x) for x in golden["log_ratios"]]
    assert ratios == near(golden["token_ratios"])
    for turns, turn in [([3], True), ([1, 2], False)]:
        batch, outputs = tokens(ratios, [1.0] * 3, turns)
        value = sequence_ratio(0.9, 9.0, turn=turn).apply(outputs, batch, 0)
        assert (-value[batch.mask]).tolist() == near([golden["s"]] * 3)
    batch, outputs = tokens(ratios, [1.0] * 3, [1, 2])
    value = sequence_ratio(0.9, 9.0, turn=True).apply(outputs, batch, 0)
    assert (-value[batch.mask]).tolist() == near([ratios[0], *[math.exp(0.1)] * 2])


def test_g4b_a_clipped_sequence_has_no_gradient_and_an_unclipped_one_has_its_ratio():
    for high, slope in [(9.0, -1.10517092), (0.01, 0.0)]:
        batch, outputs = tokens([math.exp(x) for x in (0.1, -0.05, 0.25)], [1.0] * 3, [3])
        sequence_ratio(0.9, high, turn=True).apply(outputs, batch, 0).sum().backward()
        assert outputs.logprob.grad[batch.mask].tolist() == near([slope] * 3)


def test_g4c_kl():
    golden = GOLDEN["G4c_kl"]
    batch = batch_of([[1]])
    batch = batch.with_(**{REFERENCE: written(batch, [golden["ref"]])})
    logprob = written(batch, [golden["logp"]])
    found = kl_to_reference().apply(Outputs(logprob, logprob), batch, 0)
    assert float(found[batch.mask]) == near(golden["k3"])


def test_g4c_k3_equals_k2_to_third_order_and_its_slope_is_one_minus_exp_k1():
    golden = GOLDEN["G4c_kl"]
    batch = batch_of([[1]])
    batch = batch.with_(**{REFERENCE: written(batch, [golden["ref"]])})
    logprob = written(batch, [golden["logp"]]).requires_grad_()
    found = kl_to_reference().apply(Outputs(logprob, logprob), batch, 0)[batch.mask].sum()
    (slope,) = torch.autograd.grad(found, logprob)
    assert float(found.detach()) - golden["k2"] == near(-(golden["k1"] ** 3) / 6, 1e-4)
    assert float(slope[batch.mask]) == near(1 - math.exp(-golden["k1"]))


# ---- G6: covariance clipping ---------------------------------------------------------------------


def covariant(share, low=2.0, high=60.0, ratios=None):
    golden = GOLDEN["G6_clipcov"]
    batch = batch_of([[1] * 6])
    logprob = written(batch, golden["logp"][0])
    old = logprob - written(batch, [math.log(r) for r in ratios or [1.0] * 6])
    batch = batch.with_(advantage=written(batch, golden["adv"][0]), logprob=old)
    outputs = Outputs(logprob, logprob)
    select = spare_covariant(share, low, high, clip=0.2, clip_high=0.28)
    found = select.apply(outputs, batch, torch.Generator().manual_seed(0))
    return batch, outputs, found.extra[KEPT][batch.mask]


def test_g6_covariance_eligibility_and_number():
    golden = GOLDEN["G6_clipcov"]
    batch, outputs, kept = covariant(0.5)
    assert covariance(outputs, batch)[batch.mask].tolist() == near(golden["cov"][0])
    assert (kept == 0).nonzero().squeeze(-1).tolist() == golden["eligible_idx_lb2_ub60"]
    assert int((covariant(0.02)[2] == 0).sum()) == golden["clip_num_ratio_0p02"]
    assert int((kept == 0).sum()) == golden["clip_num_ratio_0p5"]


def test_without_candidates_covariance_clipping_is_ppo():
    assert (covariant(0.5, low=50.0)[2] == 1).all()


def test_clipped_tokens_are_not_selected():
    kept = covariant(0.5, ratios=[2.0, 1, 1, 1, 1, 1])[2]
    assert (kept == 0).nonzero().squeeze(-1).tolist() == [2, 4]


# ---- G7, G11: EPO ------------------------------------------------------------------------------


def penalty(loss, entropies, reference, low, high):
    batch = batch_of([[1] * len(entropies)])
    here = torch.full((len(batch.mask),), reference, dtype=torch.float64)
    batch = corridor(batch, here, low, high)
    entropy = written(batch, entropies).requires_grad_()
    value = loss.apply(Outputs(torch.zeros_like(entropy), entropy), batch, 0)[batch.mask]
    slope = torch.zeros_like(entropy)
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value.sum(), entropy)
    return value.tolist(), slope[batch.mask].tolist()


def test_g7_the_penalty_has_a_gradient_and_the_indicator_has_none():
    golden = GOLDEN["G7_epo_pen"]
    reference = golden["Href"]
    value, slope = penalty(outside(), golden["tokens"], reference, 0.5, 1.5)
    assert value == near(golden["P_v2"])
    inner = [0, 2, 4, 5]  # on the bounds only rounding decides
    assert [slope[i] for i in inner] == near([golden["dP_v2_dH"][i] for i in inner])
    assert 0.1 * np.mean(value) == near(golden["L_smooth_v2_tokenmean"])
    value, slope = penalty(outside_indicator(), golden["tokens"], reference, 0.5, 1.5)
    assert [0.1 * value[i] for i in inner] == near([golden["P_v1_code"][i] for i in inner])
    assert slope == [0] * 6


def test_g7b_penalties_with_a_lower_bound_of_zero():
    golden = GOLDEN["G7b_epo_kappa02"]
    entropies = GOLDEN["G7_epo_pen"]["tokens"]
    assert penalty(outside(), entropies, 0.8, 0.0, 2.0)[0] == near(golden["P_v2"])
    indicator = penalty(outside_indicator(), entropies, 0.8, 0.0, 2.0)[0]
    assert [0.1 * x for x in indicator] == near(golden["P_v1"])
    assert penalty(outside_indicator(), [0.0], 0.8, 0.0, 2.0)[0] == [1]


def test_g7c_schedules():
    golden = GOLDEN["G7c_beta"]
    for name, schedule in [
        ("paper_K150", settle(75)),
        ("paper_K125", settle(62)),
        ("code", two_pieces(150)),
    ]:
        found = {step: schedule(int(step)) for step in golden[name]}
        assert found == near(golden[name]), name


@pytest.mark.parametrize(("column", "name"), [(TURNS, "eq"), (TOKENS, "tok")])
def test_g7d_the_whole_loss(column, name):
    golden = GOLDEN["G7d_epo_loss"]
    batch = batch_of([[2, 1], [1, 3]])
    entropy = written(batch, [1, 0.5, 0.2, 0.8, 0.6, 0.4, 0.2])
    batch = corridor(batch, torch.full_like(entropy, 0.5), 0.5, 1.5)
    batch = side_weights(column).apply(batch, (), 0)[0]
    outputs = Outputs(torch.zeros_like(entropy), entropy)

    def mean(loss):
        return float((loss.apply(outputs, batch, 10) * batch.extra[column]).sum())

    kind = {"eq": "eq2", "tok": "tokenmean"}[name]
    assert -mean(entropy_bonus()) == near(golden[f"L_H_{kind}"])
    smooth = {"eq": "eq4", "tok": "tokenmean"}[name]
    assert 0.1 * mean(outside()) == near(golden[f"L_S_{smooth}"])
    assert settle(75)(10) == near(golden["beta"])
    terms = add(
        scale(0.001, weighted_by(column, entropy_bonus())),
        scale(lambda step: 0.001 * 0.1 * settle(75)(step), weighted_by(column, outside())),
    )
    assert [term.weight for term in terms.terms()] == [column]
    assert 0.25 + mean(terms) == near(golden[f"L_EPO_{name}"], 1e-8)


@pytest.mark.parametrize(
    ("where", "reference"), [("below", 4.0), ("inside", 0.9475), ("above", 0.3)]
)
def test_g11_the_net_force_on_entropy(where, reference):
    golden = GOLDEN["G11_epo_net"]
    batch = batch_of([[1]])
    here = torch.full((2,), reference, dtype=torch.float64)
    batch = corridor(batch, here, 0.5, 1.5)
    logits = torch.tensor(GOLDEN["G1"]["logits"], requires_grad=True)
    outputs = Fixed(logits)(batch)
    penalty = golden["lam"] * golden["alpha"] * golden["beta"]
    loss = add(scale(golden["lam"], entropy_bonus()), scale(penalty, outside()))
    loss.apply(outputs, batch, 0)[batch.mask].sum().backward()
    assert (logits.grad * 1e3).tolist() == near(golden[f"dloss_dz_{where}"])


# ---- G10: AEPO ---------------------------------------------------------------------------------


def test_g10_the_budget():
    for case in GOLDEN["G10_budget"]:
        at = case["Hroot"], case["Htool"], case["beta"]
        assert root_share(*at) == near(case["sigma"])
        assert case["k"] * root_share(*at) == near(case["m_real"])
        assert budget(case["k"], *at) == case["m_code"]


def test_g10b_the_released_probability():
    for case in GOLDEN["G10b_branch"]:
        found = released_probability(float(case["D"]), case["l"], 0.2, 0.5)
        assert found == near(case["aepo"]), case
        assert rising_probability(float(case["D"]), 0.5, 0.2) == near(case["arpo"])


def test_g10c_the_papers_score():
    for case in GOLDEN["G10c_paper_P"]:
        found = score(float(case["D"]), case["l"], 0.5, 0.2, 0.2)
        assert found == near(case["P"])
        assert (found > 0.5 + 1e-12) == case["branch_tau05"]


def test_g10d_the_released_measure_sums_over_tokens():
    golden = GOLDEN["G10d_trunc"]
    entropies = tuple(-sum(p * math.log(p) for p in top) for top in golden["top2"])
    completion = Completion((1, 2), (0.0, 0.0), entropies)
    assert sum(entropies) == near(golden["sum_nats"])
    assert summed_entropy(completion) == near(golden["norm"])
    quiet = Completion((1,) * 30, (0.0,) * 30, (0.0,) * 30)
    assert rise(BranchPoint(completion, quiet, 0), summed_entropy) == near(golden["norm"])


@pytest.mark.parametrize("form", ["grpo", "aepo", "full"])
def test_g10f_the_whole_loss(form):
    golden = GOLDEN["G10f_loss"]
    inside = np.array(golden["mask"]) > 0

    def column(batch, values):
        return written(batch, np.array(values)[inside].tolist())

    batch = batch_of([[3], [2]])
    batch = batch.with_(
        logprob=column(batch, np.log(golden["old_p"])),
        advantage=column(batch, golden["adv"]),
        entropy=column(batch, GOLDEN["G10e_ent_adv"]["ent"]),
    )
    if form == "full":
        batch = scale_by_entropy(0.2).apply(batch, (), 0)[0]
    logprob = column(batch, np.log(golden["new_p"])).requires_grad_()
    kept = policy_gradient_kept(0.2, 0.2, below=False, dual_clip=3.0)
    loss = policy_gradient(0.2, 0.2, dual_clip=3.0) if form == "grpo" else kept
    total = (loss.apply(Outputs(logprob, logprob), batch, 0) * batch.weight).sum()
    total.backward()
    names = {"grpo": "grpo_loss", "aepo": "aepo_clip_loss", "full": "full_aepo_loss"}
    slopes = {"grpo": "grpo_grad", "aepo": "aepo_grad", "full": "full_aepo_grad"}
    assert float(total.detach()) == near(golden[names[form]])
    assert logprob.grad[batch.mask].tolist() == near(
        np.array(golden[slopes[form]])[inside].tolist()
    )


def test_g10g_the_released_counters_are_never_reset_while_no_task_forks():
    counters = [0, 0]
    for case in GOLDEN["G10g_counter"]:
        counters = count_tasks(counters, case["created"])
        assert counters == case["counters"]
        assert [1 - 0.05 * c for c in counters] == near(case["penalty"])


# ---- gradients ---------------------------------------------------------------------------------


RATIOS = [0.5, 0.9, 1.05, 1.5, 4.0, 0.5, 0.95, 1.1, 1.5, 4.0]
ADVANTAGES = [1.0] * 5 + [-0.7] * 5


def terms():
    rng = np.random.default_rng(0)
    batch, outputs = tokens(RATIOS, ADVANTAGES, [3, 2, 5])
    column = {
        name: written(batch, rng.normal(size=10))
        for name in (REFERENCE, VALUE, RETURN, "test/column")
    }
    reference = torch.full((len(batch.mask),), 0.8, dtype=torch.float64)
    batch = corridor(batch.with_(**column), reference, 0.5, 1.5)
    entropy = written(batch, [0.1, 0.5, 0.8, 1.5, 2.0, 0.2, 0.6, 0.9, 1.3, 3.0])
    outputs = Outputs(outputs.logprob.detach(), entropy, written(batch, rng.normal(size=10)))
    return batch, outputs


@pytest.mark.parametrize(
    "loss",
    [
        policy_gradient(0.2, 0.28),
        policy_gradient(0.2, 0.28, dual_clip=3.0),
        policy_gradient_controlled(0.2, 0.28, below=0.0, above=0.0),
        soft_gate(1.0, 1.05),
        reinforce(),
        negative_log_likelihood(),
        entropy_bonus(),
        kl_to_reference(),
        value_error(None, RETURN),
        value_error(0.5, RETURN),
        outside(),
        times_column("test/column", reinforce()),
        scale(lambda step: 0.3 * step, reinforce()),
    ],
)
def test_the_gradient_agrees_with_finite_differences(loss):
    batch, outputs = terms()
    leaves = [x.clone().requires_grad_() for x in outputs[:3]]

    def total(*columns):
        return loss.apply(Outputs(*columns), batch, 2)[batch.mask].sum()

    assert torch.autograd.gradcheck(total, leaves, eps=1e-6, atol=1e-6)
    gradients = torch.autograd.grad(total(*leaves), leaves, allow_unused=True)
    assert any(g is not None and g.abs().max() > 1e-3 for g in gradients)


def frozen(name, move, move0, advantage):
    """The losses with stop-gradients, written out with stopped parts held at ``move0``."""
    r, r0 = np.exp(move), np.exp(move0)
    if name == "cispo":
        return -np.clip(r0, 0.8, 1.28) * advantage * (move - 1)
    if name == "gspo":
        sequence = np.exp(move0.mean() + move - move0)
        return -np.minimum(sequence * advantage, np.clip(sequence, 0.8, 1.28) * advantage)
    upper, lower = 1.28 * r / r0, 0.8 * r / r0
    if name == "ce-gppo":
        low, high = (advantage < 0) & (r0 < 0.8), (advantage > 0) & (r0 > 1.28)
        return -np.where(low, 0.3 * lower, np.where(high, 0.6 * upper, r)) * advantage
    lower = lower if name == "gppo" else np.full_like(r, 0.8)
    clipped = np.where(r0 > 1.28, upper, np.where(r0 < 0.8, lower, r))
    return -np.minimum(r * advantage, clipped * advantage)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("cispo", clipped_weight(0.2, 0.28)),
        ("gspo", sequence_ratio(0.2, 0.28, turn=False)),
        ("gppo", policy_gradient_kept(0.2, 0.28, below=True)),
        ("aepo", policy_gradient_kept(0.2, 0.28, below=False)),
        ("ce-gppo", policy_gradient_controlled(0.2, 0.28, below=0.3, above=0.6)),
    ],
)
def test_the_gradient_agrees_with_finite_differences_while_stopped_parts_are_frozen(name, loss):
    batch, outputs = tokens(RATIOS, ADVANTAGES)
    value = loss.apply(outputs, batch, 0)
    value[batch.mask].sum().backward()
    move0, advantage, step = np.log(RATIOS), np.array(ADVANTAGES), 1e-6
    assert value[batch.mask].tolist() == near(frozen(name, move0, move0, advantage).tolist())
    slopes = [
        (
            frozen(name, move0 + d, move0, advantage) - frozen(name, move0 - d, move0, advantage)
        ).sum()
        / (2 * step)
        for d in step * np.eye(len(RATIOS))
    ]
    assert outputs.logprob.grad[batch.mask].tolist() == near(slopes, 1e-5)


def test_losses_with_different_weights_stay_separate_and_with_equal_weights_are_merged():
    loss = add(reinforce(), weighted_by(TURNS, entropy_bonus()), scale(2.0, reinforce()))
    assert [term.weight for term in loss.terms()] == ["weight", TURNS]
    assert loss.plus[0].reads == {TURNS}
    batch, outputs = terms()
    expected = 3 * reinforce().apply(outputs, batch, 0)
    assert torch.equal(loss.apply(outputs, batch, 0), expected)
    halved = scale(0.5, loss)
    bonus = [*halved.terms()][1].apply(outputs, batch, 0)
    assert torch.equal(bonus, -0.5 * outputs.entropy)


def test_columns_of_the_corridor_are_private():
    assert outside().reads == {LOW, HIGH}
