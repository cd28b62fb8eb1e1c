"""Methods that compare endings and tasks: golden numbers and invariances."""

import math

import pytest
import torch
from family_fixture import GOLDEN, near

from agentgym.credit.transforms import centre, group_advantage
from agentgym.losses.compose import Outputs
from agentgym.losses.surrogates import policy_gradient
from agentgym.testing.batches import batch_of, written
from agentgym_trainers.copo import (
    BETWEEN,
    COPO,
    INNER,
    OUTER,
    between_tasks,
    bits,
    compare_tasks,
    share_won,
    share_won_alike,
)
from agentgym_trainers.empo import agreement, disagreement, reward_agreement
from agentgym_trainers.grpo import GRPO
from agentgym_trainers.riskpo import (
    Tail,
    bundles,
    follow,
    papers_advantage,
    released_advantage,
    risk_released,
    risk_tracked,
    scores,
    with_dual_clip,
)


def run(transform, batch, state=None, step=0):
    return transform.apply(batch, transform.init() if state is None else state, step)


def ended(letters, **about):
    """One task with one episode per letter; equal letters are equal endings."""
    return batch_of([[1]] * len(letters), ending_hash=list(map(ord, letters)), **about)


# ---- EMPO --------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters", GOLDEN["W15_empo"])
def test_w15_agreement(letters):
    golden = GOLDEN["W15_empo"][letters]
    batch = ended(letters)
    assert agreement(batch).tolist() == near(golden["r"])
    assert disagreement(batch).tolist() == near([golden["H"]] * len(letters))
    assert float(agreement(batch).mean()) == near(golden["sum_p2"]) == near(golden["mean_r"])
    rewarded = run(reward_agreement(-1.0, 99.0), batch)[0]
    found = run(group_advantage(unbiased=True), rewarded)[0].advantage[batch.mask]
    assert found.tolist() == near(golden["adv"], 2e-6)


def test_w15_tasks_with_full_agreement_or_full_disagreement_are_left_out():
    for letters, counts in [("AAAB", True), ("AAAA", False), ("ABCD", False)]:
        found = run(reward_agreement(0.0, None), ended(letters))[0].reward
        assert bool((found > 0).all()) is counts and bool((found == 0).all()) is not counts
    narrow = run(reward_agreement(0.6, None), ended("AAAB"))[0].reward
    assert (narrow == 0).all()


def test_empo_the_names_of_endings_do_not_matter():
    one, other = ended("AABC"), ended("ZZQA")
    assert agreement(one).tolist() == agreement(other).tolist()


def test_empo_a_truncated_episode_has_no_agreement_and_counts_in_the_group_size():
    batch = ended("AAAB").with_(truncated=torch.tensor([False, False, True, True]))
    assert agreement(batch).tolist() == [0.5, 0.5, 0, 0]
    assert disagreement(batch).tolist() == [0] * 4
    mixed = ended("ABAB").with_(truncated=torch.tensor([False, False, False, True]))
    assert disagreement(mixed).tolist() == near([0.636514] * 4)


def test_empo_compares_endings_only_within_a_task():
    batch = ended("AAAB", group=[0, 0, 1, 1])
    assert agreement(batch).tolist() == [1, 1, 0.5, 0.5]


def test_empo_can_add_the_reward_of_the_environment():
    batch = ended("AAAB", reward=[1.0, 0, 0, 0])
    found = run(reward_agreement(0.0, None, world=2.0), batch)[0]
    assert found.reward.tolist() == near([2.75, 0.75, 0.75, 0.25])
    assert found.turn_reward[found.mask].tolist() == near([1.75, 0.75, 0.75, 0.25])


# ---- COPO --------------------------------------------------------------------------------------


def four_tasks():
    """The golden tasks: half right, unanimously wrong, unanimously right, all different."""
    letters = "aaabcd" + "a" * 6 + "a" * 6 + "abcdef"
    wins = [1, 1, 1, 0, 0, 0] + [0] * 6 + [1] * 6 + [1] + [0] * 5
    group = [k for k in range(4) for _ in range(6)]
    return ended(letters, reward=list(map(float, wins)), group=group)


def per_task(column):
    return column[::6].tolist()


def test_w12_entropy_return_and_share_of_each_task():
    golden = [GOLDEN["W12_copo"]["per"][f"P{k}"] for k in (1, 2, 3, 4)]
    batch = four_tasks()
    assert per_task(bits(batch)) == near([task["H"] for task in golden])
    returns = share_won_alike(batch)
    assert per_task(returns) == near([task["Rg"] for task in golden])
    assert per_task(share_won(batch)) == near([0.5, 0, 1, 1 / 6])
    for sharpness, middle, name in [
        (1.0, 0.5, "w_k1_b05"),
        (5.0, 1.0, "w_k5_b1"),
        (20.0, 1.0, "w_k20_b1"),
    ]:
        found = run(compare_tasks(sharpness, middle, share_won_alike), batch)[0]
        assert per_task(found.extra[INNER][found.mask]) == near([task[name] for task in golden])
        assert (found.extra[INNER] + found.extra[OUTER])[found.mask].tolist() == near([1] * 24)
    assert per_task(between_tasks(returns, batch)) == near(GOLDEN["W12_copo"]["Ag"])


def test_w12_the_share_is_one_over_n_when_no_two_episodes_agree():
    batch = ended("abcdef", reward=[1.0] * 6)
    assert share_won_alike(batch).tolist() == near([1 / 6] * 6)
    alone = ended("a", reward=[1.0])
    assert share_won_alike(alone).tolist() == [1]
    assert between_tasks(share_won_alike(alone), alone).tolist() == [0]


def two_losses(ratio, within, between, inner):
    batch = batch_of([[1]])
    batch = batch.with_(
        advantage=written(batch, [within]),
        **{
            BETWEEN: written(batch, [between]),
            INNER: written(batch, [inner]),
            OUTER: written(batch, [1 - inner]),
        },
    )
    logprob = written(batch, [math.log(ratio)]).requires_grad_()
    loss = COPO(base=GRPO(clip_ratio_high=0.2)).build().updates[0].loss
    value = loss.apply(Outputs(logprob, logprob), batch, 0)[batch.mask].sum()
    (slope,) = torch.autograd.grad(value, logprob)
    return float(value.detach()), float(slope[batch.mask])


def test_w12_two_losses_are_not_the_loss_of_the_mixed_advantage():
    golden = GOLDEN["W12_copo"]["two_losses_vs_blend_adv"]
    assert two_losses(1.5, 1.0, -1.0, 0.5) == near((golden["two"], golden["grad_two"]))
    blend = GOLDEN["W12_copo"]["blend"]
    assert two_losses(1.0, -0.4, 0.1, blend["w"])[0] == near(blend["loss"])


def test_copo_trains_on_a_task_that_always_fails_in_the_same_way():
    batch = four_tasks()
    credit = COPO().build().credit
    found = run(credit, batch)[0]
    second = found.mask & (found.episode_of_token // 6 == 1)
    assert (found.advantage[second] == 0).all() and (found.extra[BETWEEN][second] < 0).all()
    assert found.weight[second].min() > 0


@pytest.mark.parametrize(
    ("config", "returns"), [(COPO.paper(), share_won_alike), (COPO.released(), share_won)]
)
def test_copo_compares_task_returns_as_defined_in_the_paper_or_in_the_code(config, returns):
    found = run(config.build().credit, four_tasks())[0]
    expected = between_tasks(returns(four_tasks()), four_tasks())
    assert found.extra[BETWEEN].tolist() == near(
        (expected[found.episode_of_token] * found.mask).tolist()
    )


def test_copo_the_weight_of_the_inner_advantage_rises_with_disagreement():
    found = run(compare_tasks(5.0, 1.0, share_won_alike), four_tasks())[0]
    inner = per_task(found.extra[INNER][found.mask])
    assert inner[1] == inner[2] < inner[0] < inner[3]


# ---- RiskPO ------------------------------------------------------------------------------------

SCORES = torch.arange(6, dtype=torch.float64)


def at(a, b):
    return torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)


def test_w14_advantages_of_the_paper_and_of_the_released_code():
    golden = GOLDEN["W14_riskpo"]
    paper = papers_advantage(SCORES, *at(1.0, 4.0), Tail(0.2, 0.8, 0.5))  # type: ignore[call-arg]
    assert paper.tolist() == near([golden["paper"][str(k)] for k in range(6)])
    code = released_advantage(SCORES, *at(1.0, 4.0), Tail(0.2, 0.8, 1.5))  # type: ignore[call-arg]
    assert code.tolist() == near([golden["code_nat1"][str(k)] for k in range(6)])
    for found in (paper, code):
        assert (found.diff() >= 0).all() and (found <= 0).all()


def test_w14_the_natural_baseline_of_the_released_code_only_shifts_the_advantage():
    golden = GOLDEN["W14_riskpo"]
    found = released_advantage(SCORES, *at(1.0, 4.0), Tail(0.2, 0.8, 1.5))  # type: ignore[call-arg]
    without = found - found[1]  # the score below both tail and middle
    assert without.tolist() == near([golden["code_nat0"][str(k)] for k in range(6)], 2e-6)


@pytest.mark.parametrize(
    ("name", "reward", "others"),
    [
        ("ok", [1.0, 0, 0], [[0.0] * 4, [1.0], [1.0]]),
        ("flip", [1.0, 1, 0], [[0.0], [0.0], [1.0]]),
        ("zero", [1.0, 0], [[0.0], [1.0]]),
    ],
)
def test_w14_shares_of_the_sum_could_flip_signs_and_our_credit_does_not(name, reward, others):
    """The bundle holds the first episode of each task; a share is a centred reward over the sum."""
    rewards = [r for first, rest in zip(reward, others, strict=True) for r in (first, *rest)]
    group = [k for k, rest in enumerate(others) for _ in range(1 + len(rest))]
    batch = batch_of([[1]] * len(group), reward=rewards, group=group)
    first = batch.sample == 0
    part = centre(batch.reward, batch.group)[first]
    total = float(part.sum())
    shares = part / total if abs(total) > 1e-6 else torch.full_like(part, 1 / len(part))
    assert (-shares).tolist() == near(GOLDEN["W14_riskpo"]["sum_mean"][name])
    state = (sum(reward) + 1.0, sum(reward) + 1.0)
    found, _ = run(risk_tracked(len(reward), Tail(0.2, 0.8, 0.0), 0.1), batch, state)
    ours = found.advantage[batch.mask][first]
    assert ours.tolist() == near([-1.0] * len(reward))


def test_w14_quantiles_and_their_tracking():
    golden = GOLDEN["W14_riskpo"]
    score = torch.tensor(golden["quant"]["R"])
    assert [float(score.quantile(x)) for x in (0.2, 0.8)] == near(golden["quant"]["q"])
    assert float(score.std()) == near(golden["quant"]["std"])
    track = golden["track"]
    for level in (".2", ".8"):
        found = follow(track["q0"], score, float(level), 0.1)
        assert found == near(track["next_"][level]), level
    assert follow(2.0, score, track["frac"], 0.1) == near(2.0)


def two_questions():
    rewards = [1.0, 0, 1, 0, 1, 0, 0, 0]
    return batch_of([[1]] * 8, reward=rewards, group=[0] * 4 + [1] * 4)


def test_w14_a_bundle_of_two_tasks():
    batch = two_questions()
    for step in (0, 1, 2, None):
        bundle = bundles(batch, 2, step)
        assert bundle.tolist() == [0, 1, 2, 3] * 2
        assert scores(batch, bundle, 2).tolist() == [2, 0, 1, 0]
    found, state = run(risk_tracked(2, Tail(0.2, 0.8, 0.5), 0.1), batch)
    assert found.advantage[batch.mask].tolist() == near([0, -1.4, -0.4, -1.4] * 2)
    assert state == (near(0 + 0.1 * 0.2), near(1.4 + 0.1 * (0.8 - 0.75)))
    again, _ = run(risk_tracked(2, Tail(0.2, 0.8, 0.5), 0.1), batch, state=(1.0, 2.0))
    assert again.advantage[batch.mask].tolist() == near([0, -2.5, -1, -2.5] * 2)


def test_w14_the_released_code_divides_a_bundle_by_both_standard_deviations():
    batch = two_questions()
    found, _ = run(risk_released(2, Tail(0.2, 0.8, 1.5)), batch)
    score = torch.tensor([2.0, 0, 1, 0])
    plain = torch.tensor([0, -0.933332, -0.266666, -0.933332]) / (score.std() + 1e-6)
    deviation = torch.tensor([0.5] * 4 + [math.sqrt(3) / 4] * 4)
    expected = torch.cat([plain, plain]) / deviation
    assert found.advantage[batch.mask].tolist() == near(expected.tolist(), 1e-4)


def test_riskpo_bundles_are_redrawn_at_every_step_and_a_short_bundle_is_scaled_up():
    batch = batch_of([[1]] * 10, reward=[1.0] * 10, group=[k // 2 for k in range(10)])
    found = {tuple(bundles(batch, 2, step).tolist()) for step in range(20)}
    assert len(found) > 5
    for bundle in found:
        score = scores(batch, torch.tensor(bundle), 2)
        assert score.tolist() == [2.0] * 6
        pairs = [{k // 2 for k in range(10) if bundle[k] == b} for b in set(bundle)]
        assert sorted(map(len, pairs)) == [1, 1, 2, 2, 2, 2]


def test_riskpo_bounds_the_loss_of_a_token_with_negative_advantage():
    batch = batch_of([[2]])
    batch = batch.with_(advantage=written(batch, [-1.0, -1.0]))
    logprob = written(batch, [math.log(20), math.log(2)]).requires_grad_()
    value = with_dual_clip(policy_gradient(0.2), 3.0).apply(Outputs(logprob, logprob), batch, 0)
    assert value[batch.mask].tolist() == near([3, 2])
    (slope,) = torch.autograd.grad(value.sum(), logprob)
    assert slope[batch.mask].tolist() == near([0, 2])
