"""Golden numbers and gradients of the wider entropy family; computed elsewhere, in numpy."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from agentgym.losses import Outputs, add, policy_gradient, times, weigh
from agentgym.reductions import expected_tilt, nucleus_entropy, tempered_logprob
from agentgym.testing.batches import batch_of, written
from agentgym.turns import quantile_by, turns_of, windows
from agentgym_trainers.ares import (
    ARES,
    EASY,
    HARD,
    MEDIUM,
    Explored,
    count_windows,
    difficulty_of,
    explore_as_needed,
    graded,
    multiplied,
)
from agentgym_trainers.clipcov import covariance, spare_covariant
from agentgym_trainers.discriminator import (
    EXPECTED,
    KEPT,
    above_the_batch,
    drop,
    near_the_policy,
    tilt,
)
from agentgym_trainers.ear import cut, relative_certainty, reshape_by_certainty
from agentgym_trainers.klcov import HELD, distance, hold_covariant, unclipped
from agentgym_trainers.pear import charge_thoughts, unsettled
from agentgym_trainers.steer import WEIGHT, decaying, effect, linear, weigh_by_effect

GOLDEN = json.loads((Path(__file__).parent / "golden" / "family.json").read_text())
FIXTURE = GOLDEN["F1"]


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


def flat(rows):
    """Two rows of the fixture without the padding at the end of the second."""
    return [*rows[0], *rows[1][:3]]


def fixture():
    """Two episodes of four and three tokens, and what the policy says a little later."""
    batch = batch_of([[4], [3]])
    batch = batch.with_(
        advantage=written(batch, flat(FIXTURE["A"])), logprob=written(batch, flat(FIXTURE["old"]))
    )
    logprob = written(batch, flat(FIXTURE["new"])).requires_grad_()
    return batch, Outputs(logprob, written(batch, flat(FIXTURE["H"])))


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


def test_w3_clip_cov_drops_two_of_its_three_candidates():
    batch, outputs = fixture()
    select = spare_covariant(0.3, 0.3, 2.0, clip=1.0, clip_high=1.0)
    seen = set()
    for seed in range(20):
        loss = times("clipcov/kept", policy_gradient(1.0, 1.0))
        chosen = choose(select, batch, outputs, seed)
        seen.add(round(mean_and_slope(loss, chosen, outputs)[0], 6))
    assert seen == {-0.274656, -0.522692, -0.531482}


def test_w3_kl_cov():
    golden = GOLDEN["W3_klcov"]
    batch, outputs = fixture()
    batch = choose(hold_covariant(0.3), batch, outputs)
    held = batch.extra[HELD][batch.mask].nonzero().squeeze(-1).tolist()
    assert held == sorted(golden["top_flat"])
    mean, slope = mean_and_slope(add(unclipped(), times(HELD, distance())), batch, outputs)
    assert mean == near(golden["token_mean"]) and slope == near(flat(golden["grad"]))
    assert mean_and_slope(unclipped(), batch, outputs)[0] == near(golden["without"])


def test_kl_cov_is_the_plain_gradient_before_the_policy_has_moved():
    batch, outputs = fixture()
    batch = batch.with_(logprob=outputs.logprob.detach(), **{HELD: batch.mask.double()})
    loss = add(unclipped(), weigh(9.0, times(HELD, distance())))
    assert mean_and_slope(loss, batch, outputs)[1] == near(
        (-batch.advantage[batch.mask]).tolist(), 1e-12
    )


def test_kl_cov_holds_at_least_one_token():
    batch, outputs = fixture()
    assert choose(hold_covariant(1e-6), batch, outputs).extra[HELD].sum() == 1


# ---- STEER -------------------------------------------------------------------------------------


def test_w4_the_effect_and_both_laws():
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
        surrogate = times(WEIGHT, policy_gradient(0.2, 0.28, dual=10.0))
        assert mean_and_slope(surrogate, chosen, outputs)[0] == near(golden[loss])
    extreme = choose(weigh_by_effect("linear", 0.8, 1.2), batch, outputs)
    wide = times(WEIGHT, policy_gradient(0.99, 5.0))
    assert mean_and_slope(wide, extreme, outputs)[0] == near(-0.605973)


def test_steer_the_papers_law_has_no_effect_where_the_clip_has_stopped():
    batch, outputs = fixture()
    chosen = choose(weigh_by_effect("relative", 0.8, 1.2, (0.2, 0.28)), batch, outputs)
    weight = chosen.extra[WEIGHT][batch.mask]
    stopped = [1, 3, 5]
    assert weight[stopped].tolist() == near([1] * 3)
    others = [0, 2, 4, 6]
    assert float(weight[others].min()) == near(0.8) and (weight[others] < 1).all()


def test_steer_where_all_effects_are_alike_the_weights_are_too():
    alike = torch.full((3,), 0.4)
    assert linear(alike, 0.8, 1.2).tolist() == near([1.0] * 3)
    assert decaying(torch.zeros(3), 0.8, 1.2).tolist() == [1] * 3


def test_steer_weights_fall_with_the_effect_and_linear_ones_ignore_its_scale():
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


def test_w0_tilt_its_mean_under_the_policy_and_the_entropy_a_logit_takes():
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


def test_w6_a_step_towards_a_warmer_distribution_raises_entropy():
    golden = GOLDEN["W6_dir"]
    for temperature, name, change in [(1.2, "hot", "dH_hot"), (0.8, "cold", "dH_cold")]:
        warm = reduce(tempered_logprob("x", temperature)).exp()
        assert warm.tolist() == near(golden[name])
        moved = (P0.log() + 0.01 * (warm - P0)).softmax(-1)
        entropy = -(moved * moved.log()).sum() + (P0 * P0.log()).sum()
        assert float(entropy) == near(golden[change])


@pytest.mark.parametrize("temperature", [0.8, 1.0, 1.2])
def test_the_weight_of_a_tempered_draw_is_one_on_average(temperature):
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
def test_the_gradient_of_a_reduction_is_what_finite_differences_say(reduction):
    logits = torch.tensor([[1.0, 0.2, -0.5, 0.3], [2, -1, 0.1, 0.4]], dtype=torch.float64)

    def total(logits):
        return reduction.apply(logits.log_softmax(-1), EVERY[:2])

    assert torch.autograd.gradcheck(total, [logits.requires_grad_()], eps=1e-6, atol=1e-6)


def test_a_distribution_that_is_sure_has_an_entropy_and_a_gradient_of_zero():
    """The exclusive nucleus is empty, the inclusive one a single token."""
    for inclusive in (False, True):
        logits = torch.tensor([[50.0, 0, 0, 0]], requires_grad=True)
        reduction = nucleus_entropy("x", 0.8, inclusive=inclusive)
        found = reduction.apply(logits.log_softmax(-1), EVERY[:1])
        found.sum().backward()
        assert float(found.detach()) == near(0) and logits.grad.abs().max() == near(0)


# ---- Clip_B and Clip_V -------------------------------------------------------------------------


def scored(advantage, expected=None):
    """A batch with these scores S: entropy is chosen so, with a probability of one half."""
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


def test_clip_b_what_is_dropped_leaves_the_mean_or_counts_as_nothing():
    batch = scored(GOLDEN["W10_clipB"]["A"])
    for shrink, weight in [(True, [1 / 7] * 7), (False, [1 / 8] * 7)]:
        dropping = drop(above_the_batch(2.5), shrink=shrink)
        found = dropping.apply(batch, dropping.init(), 0)[0]
        left = (found.weight * found.extra[KEPT])[batch.mask]
        assert left.tolist() == near([*weight[:4], 0, *weight[4:]])


# ---- PEAR --------------------------------------------------------------------------------------


def thinking(entropy, thoughts, **about):
    """One episode with these entropies, whose first tokens are thought."""
    batch = batch_of([[len(entropy)]], **{"reward": [1.0], **about})
    thought = written(batch, [1.0] * thoughts + [0.0] * (len(entropy) - thoughts)) > 0
    return batch.with_(entropy=written(batch, entropy), thought=thought)


def charged(batch, alpha, most=None, *, silent=True):
    return float(
        charge_thoughts(alpha, most, silent_is_thought=silent).apply(batch, (), 0)[0].reward
    )


@pytest.mark.parametrize(
    ("alpha", "name"),
    [(1.0, "k=3,a=1,ok"), (0.0, "a=0"), (-1.0, "a=-1"), (2.0, "a=2"), (3.0, "a=3")],
)
def test_w11_a_win_is_charged_for_uncertain_thoughts(alpha, name):
    _, _, penalty, reward = GOLDEN["W11_pear"][name]
    batch = thinking([0.5, 0.7, 0.3, 0.1, 0.3], 3)
    assert float(unsettled(batch, alpha, silent_is_thought=True)) == near(penalty)
    assert charged(batch, alpha) == near(reward)


def test_w11_without_a_mark_all_is_thought_in_the_paper_and_action_here():
    batch = thinking([0.5, 0.7, 0.3, 0.0, 0.1, 0.3], 0)
    assert charged(batch, 1.0) == near(GOLDEN["W11_pear"]["no_marker"][3])
    assert charged(batch, 1.0, silent=False) == 1


def test_w11_a_loss_never_depends_on_entropy_and_a_bounded_charge_leaves_a_win_worth_more():
    lost = thinking([3.0, 0.1], 1, reward=[0.0])
    assert charged(lost, 1.0) == GOLDEN["W11_pear"]["wrong"][3] == 0
    won = thinking([3.0, 0.1], 1)
    assert charged(won, 1.0) < 0 < charged(won, 1.0, 0.9) == near(0.1)


def test_pear_thoughts_and_actions_are_pooled_over_the_turns_of_an_episode():
    batch = batch_of([[2, 2]], reward=[1.0], won=[True])
    thought = written(batch, [1, 0, 1, 0]) > 0
    batch = batch.with_(entropy=written(batch, [1.0, 0.2, 0.6, 0.4]), thought=thought)
    assert float(unsettled(batch, 1.0, silent_is_thought=False)) == near(0.8 - 0.3)


# ---- ETTRL's EAR -------------------------------------------------------------------------------


def with_mean_entropies(entropy, advantage):
    batch = batch_of([[2], [1, 1], [3], [1]])
    lengths = [2, 2, 3, 1]
    spread = [h for h, n in zip(entropy, lengths, strict=True) for _ in range(n)]
    given = [a for a, n in zip(advantage, lengths, strict=True) for _ in range(n)]
    return batch.with_(entropy=written(batch, spread), advantage=written(batch, given))


def per_episode(batch, column):
    return [float(column[batch.mask & (batch.owner == e)][0]) for e in range(len(batch.group))]


def test_w13_the_factor_and_both_forms():
    golden = GOLDEN["W13_ettrl"]
    batch = with_mean_entropies(golden["H"], golden["A"])
    factor = relative_certainty(batch)
    assert factor.tolist() == near(golden["Y"]) and float(factor.mean()) == near(golden["meanY"])
    for transform, name in [
        (reshape_by_certainty(keep_sign=True), "A_res"),
        (reshape_by_certainty(keep_sign=False), "A_res"),
        (cut(2.0), "A_clip"),
    ]:
        found = transform.apply(batch, (), 0)[0].advantage
        assert per_episode(batch, found) == near(golden[name])


def test_w13_twice_the_entropy_of_the_group_flips_the_sign_only_in_the_paper():
    golden = GOLDEN["W13_ettrl"]
    batch = with_mean_entropies([0.1, 0.1, 0.1, 1.7], [1.0] * 4)
    assert relative_certainty(batch).tolist() == near(golden["flip"])
    kept = reshape_by_certainty(keep_sign=True).apply(batch, (), 0)[0].advantage
    assert per_episode(batch, kept) == near([1.8, 1.8, 1.8, 0])


def test_ear_compares_with_the_own_group_only():
    batch = batch_of([[1], [1], [2], [1]], group=[0, 0, 1, 1])
    batch = batch.with_(entropy=written(batch, [0.2, 0.6, 3, 5, 4]))
    assert relative_certainty(batch).tolist() == near([1.5, 0.5, 1, 1])


def test_ear_fixture_and_equal_entropies():
    batch, outputs = fixture()
    batch = batch.with_(entropy=outputs.entropy)
    assert relative_certainty(batch).tolist() == near([0.855814, 1.144186])
    assert relative_certainty(batch.with_(entropy=0 * batch.entropy)).tolist() == [1, 1]
    alike = with_mean_entropies([0.3] * 4, [1.0] * 4)
    assert relative_certainty(alike).tolist() == near([1] * 4, 1e-12)


# ---- windows and quantiles ---------------------------------------------------------------------

TURNS = [[2, 2, 1]]
UNEVEN = [0.2, 0.8, 0.4, 1.6, 0.6]


def three_turns():
    """One episode of three turns, with junk for entropy on what was read."""
    batch = batch_of(TURNS)
    return batch.with_(entropy=torch.where(batch.mask, written(batch, UNEVEN), 5.0))


def test_f2_windows_end_with_their_turn():
    batch = three_turns()
    found = windows(batch.entropy, turns_of(batch), 2)
    assert found[[0, 2]].tolist() == near([0.5, 1.0]) and found[[1, 3, 4]].isnan().all()


def test_f2_quantiles_of_an_episode_and_of_its_turns():
    batch = three_turns()
    turns, value = turns_of(batch), batch.entropy[batch.mask]
    whole = quantile_by(value, torch.zeros(5, dtype=torch.long), 0.8, 1)
    assert whole.tolist() == near([0.96])
    each = quantile_by(value, turns.turn, 0.8, 3)
    assert each.tolist() == near([0.68, 1.36, 0.6])
    assert (value > each[turns.turn]).nonzero().squeeze(-1).tolist() == [1, 3]


@pytest.mark.parametrize("level", [0.0, 0.3, 0.8, 1.0])
def test_quantiles_by_key_are_those_of_each_part(level):
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(50, generator=generator, dtype=torch.float64).round(decimals=1)
    key = torch.randint(0, 4, (50,), generator=generator)
    found = quantile_by(value, key, level, 6)
    assert found[:4].tolist() == near([float(value[key == k].quantile(level)) for k in range(4)])
    assert found[4:].tolist() == [0, 0]
    assert quantile_by(value[:0], key[:0], level, 2).tolist() == [0, 0]


# ---- ARES --------------------------------------------------------------------------------------


def test_w9_windows_trigger_where_a_single_token_does_not():
    golden = GOLDEN["W9_win"]
    batch = batch_of([[len(golden["H"])]])
    batch = batch.with_(entropy=written(batch, golden["H"]))
    found = windows(batch.entropy, turns_of(batch), 4)
    assert found[:7].tolist() == near(golden["w4"]) and found[7:].isnan().all()
    assert float(found[:7].quantile(0.95)) == near(golden["thr_q95"])
    assert (found > golden["thr_q95"]).nonzero().squeeze(-1).tolist() == golden["trig"]
    assert count_windows(batch, 4, 0.95).tolist() == [1]
    single = quantile_by(batch.entropy[batch.mask], torch.zeros(10).long(), 0.95, 1)
    assert (batch.entropy[batch.mask] > single).nonzero().squeeze(-1).tolist() == golden["trig_tok"]


def shaped(kind, count, target, won, *, paid=True):
    seen = Explored(
        torch.tensor([float(count)]),
        torch.tensor([float(target)]),
        torch.tensor([won]),
        torch.tensor([kind]),
    )
    return float(graded(seen, 0.5, paid_at_target=paid))


@pytest.mark.parametrize("case", GOLDEN["W9_reward"])
def test_w9_the_reward(case):
    kind, count, target, won = case.split(",")
    kinds = {"easy": EASY, "medium": MEDIUM, "hard": HARD}
    won = won == "ok=True"
    found = won + shaped(kinds[kind], int(count[2:]), int(target[2:]), won)
    assert found == near(GOLDEN["W9_reward"][case])


def test_ares_the_shaping_is_bounded_and_an_easy_win_never_gains():
    for kind, count, won in itertools.product(range(3), range(0, 60, 7), (True, False)):
        found = shaped(kind, count, 20, won)
        assert abs(found) <= 0.5 * (1.2 if kind == HARD else 1) + 1e-6
        assert found <= 0 if (won and kind == EASY) else won or found > 0
        assert won or shaped(kind, 20, 20, won, paid=False) == near(0)


def test_ares_the_papers_multiplier_is_zero_for_the_papers_target():
    count = torch.tensor([3.0, 9, 4, 0, 7, 7])
    difficulty = torch.tensor([0, 0, 1, 1, 2, 2])
    target = torch.tensor([6.0, 6, 2, 2, 7, 7])
    lost = torch.zeros(6, dtype=torch.bool)
    assert multiplied(Explored(count, target, lost, difficulty)).abs().max() < 1e-6
    assert multiplied(Explored(count, target - 1, lost, difficulty)).abs().max() > 0


def test_ares_difficulty_is_the_share_of_wins_and_the_target_the_mean_of_wins():
    batch = batch_of([[1]] * 6, reward=[1, 1, 1, 0, 0, 0], group=[0, 0, 1, 1, 2, 2])
    assert difficulty_of(batch, 2 / 3, 1 / 3).tolist() == [EASY] * 2 + [MEDIUM] * 2 + [HARD] * 2
    batch = batch_of([[4], [8]], reward=[1.0, 0.0])
    batch = batch.with_(entropy=written(batch, [0.1, 0.1, 9, 0.1, *[9.0, 0.1] * 4]))
    config = ARES(width=1, level=0.5)
    transform = explore_as_needed(config)
    found, (mean, known) = transform.apply(batch, transform.init(), 0)
    assert mean.tolist() == [0, 1, 0] and known.tolist() == [False, True, False]
    _, (mean, _) = transform.apply(batch.with_(won=~batch.won), (mean, known), 1)
    assert mean.tolist() == near([0, 0.9 * 1 + 0.1 * 4, 0])
    assert float(found.reward[0]) == 1 and float(found.reward[1]) > 0


# ---- gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [unclipped(), times("test/column", distance())], ids=["unclipped", "distance"]
)
def test_a_gradient_is_what_finite_differences_say(loss):
    batch, outputs = fixture()
    batch = batch.with_(**{"test/column": written(batch, [0.3, -1, 2, 0.5, 1, 1, -2])})
    move = written(batch, [0.3, -0.2, 0.4, 0.1, -0.5, 0.25, -0.1])  # away from the kink at 0
    leaf = (batch.logprob + move).requires_grad_()

    def total(logprob):
        return loss.apply(Outputs(logprob, outputs.entropy), batch, 0)[batch.mask].sum()

    assert torch.autograd.gradcheck(total, [leaf], eps=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(total(leaf), leaf)
    assert slope.abs().max() > 1e-3 and math.isfinite(float(slope.sum()))
