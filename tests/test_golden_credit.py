"""Golden numbers of credit: advantages, weights, rewards. Computed elsewhere, in numpy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agentgym.batch.batch import VALUE, episode_mean, token_mean
from agentgym.batch.turns import discounted_returns, turns_of
from agentgym.credit.advantages import (
    RETURN,
    gae,
    group_advantage_over_turns,
    leave_one_out,
    returns_to_go,
    whiten,
)
from agentgym.credit.reward_shaping import overlong
from agentgym.credit.transforms import chain, group_advantage, mean_over_episodes
from agentgym.evaluation.stats.bootstrap import bootstrap_mean
from agentgym.losses.compose import Loss, Outputs, minibatch_loss, token_sum
from agentgym.testing.batches import batch_of, written
from agentgym_trainers.aepo import scale_by_entropy
from agentgym_trainers.corridor import (
    HIGH,
    LOW,
    corridor,
    overall_history,
    padded_history,
    turn_history,
)
from agentgym_trainers.curriculum import count_acts, count_acts_unless_won, fade, ramp
from agentgym_trainers.drbot import highest_variance_tasks, return_std
from agentgym_trainers.empg import centre_steps, rescale, reward_clarity, scale_by_confidence
from agentgym_trainers.gigpo import add_step_advantage
from agentgym_trainers.replay import floor_power_of_two, recalibrate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "core.json").read_text())


def near(values, tolerance=1e-6):
    return pytest.approx(values, abs=tolerance)


def run(transform, batch, state=None, step=0):
    return transform.apply(batch, transform.init() if state is None else state, step)[0]


def per_turn(batch, column):
    return turns_of(batch).first(column).tolist()


# ---- weights -----------------------------------------------------------------------------------


def test_g2_four_ways_to_aggregate_a_loss():
    golden = GOLDEN["G2"]
    batch = batch_of([[3], [1]])
    loss = written(batch, [1, 2, 3, 4])

    def mean(weight):
        return float((weight * loss).sum())

    given = Loss(lambda outputs, batch, step: loss)

    def summed(constant, **how):
        batch_ = batch.with_(weight=token_mean(batch.mask))
        return float(minibatch_loss(token_sum(given, constant, **how), Outputs(loss, loss), batch_))

    assert mean(token_mean(batch.mask)) == near(golden["token-mean"])
    assert mean(episode_mean(batch, batch.mask)) == near(golden["seq-mean-token-mean"])
    assert summed(4) == near(golden["drgrpo"])
    assert summed(4, per_episode=False) == near(golden["seq-mean-token-sum-norm"])
    assert summed(1) == near(golden["seq-mean-token-sum"])


# ---- groups ------------------------------------------------------------------------------------


def test_g3_groups():
    golden = GOLDEN["G3"]
    batch = batch_of([[1]] * 4, reward=golden["rewards"])
    for name, transform in {
        "grpo": group_advantage(unbiased=True),
        "drgrpo": group_advantage(scale=False),
        "rloo": leave_one_out(),
    }.items():
        assert per_turn(batch, run(transform, batch).advantage) == near(golden[name]), name


def test_g3b_statistics_over_turns_favour_long_episodes():
    golden = GOLDEN["G3b_stepweighted"]
    batch = batch_of([[1], [1, 1, 1]], reward=[10, 0])
    turns = run(group_advantage_over_turns(), batch).advantage
    assert per_turn(batch, turns) == near(golden["adv_rows"])
    episodes = run(group_advantage(unbiased=True), batch).advantage
    high, low = golden["adv_traj"]
    assert per_turn(batch, episodes) == near([high, low, low, low])


@pytest.mark.parametrize("reward", [0.1, 0.3, -0.7, 1e-3])
@pytest.mark.parametrize(
    "transform",
    [
        group_advantage(),
        group_advantage(unbiased=True),
        group_advantage_over_turns(),
        leave_one_out(),
    ],
)
def test_a_group_of_equal_rewards_has_exactly_zero_advantage(reward, transform):
    """The rounded mean of equal numbers may differ from them and leave a remainder."""
    batch = batch_of(
        [[1, 2]] * 7 + [[1]] * 2, reward=[reward] * 7 + [0, 1], group=[0] * 7 + [1] * 2
    )
    batch = batch.with_(reward=batch.reward.float())
    found = run(transform, batch).advantage
    assert (found[batch.episode_of_token < 7] == 0).all()
    weight = run(mean_over_episodes(), batch.with_(advantage=found)).weight
    assert weight[batch.episode_of_token < 7].sum() == 0 and weight.sum() > 0


@pytest.mark.parametrize("gain", [0.1, 0.3, -0.7, 1e-3])
def test_a_step_group_of_equal_returns_has_exactly_zero_advantage(gain):
    """As in a group of episodes: a rounding remainder would be scaled up to 0.01."""
    batch = batch_of(
        [[1]] * 7 + [[1]] * 2, turn_reward=[gain] * 7 + [0, 1], observation_hash=[0] * 7 + [1] * 2
    )
    batch = batch.with_(turn_reward=batch.turn_reward.float())
    found = run(add_step_advantage(1.0, 0.95), batch).advantage
    assert (found[batch.episode_of_token < 7] == 0).all() and (
        found[batch.episode_of_token >= 7] != 0
    ).any()


def test_g3c_reinforce_plus_plus():
    golden = GOLDEN["G3c_rpp"]
    batch = batch_of([[3], [2]], reward=[1, 0], turn_reward=[1, 0])
    returns = run(returns_to_go(), batch)
    assert returns.advantage[batch.mask].tolist() == near([1, 1, 1, 0, 0])
    white = run(whiten(), returns).advantage[batch.mask].tolist()
    assert white == near([*golden["adv"][0], *golden["adv"][1][:2]])


@pytest.mark.parametrize(("trace", "name"), [(1.0, "adv_g1_l1"), (0.95, "adv_g1_l095")])
@pytest.mark.parametrize("turns", [[3], [1, 2], [1, 1, 1]])
def test_g3d_gae_runs_over_tokens_across_turns(trace, name, turns):
    golden = GOLDEN["G3d_gae"]
    gain = [0.0] * (len(turns) - 1) + [1.0]
    batch = batch_of([turns], reward=[1], turn_reward=gain)
    batch = batch.with_(**{VALUE: written(batch, golden["V"])})
    found = run(gae(1.0, trace), batch)
    assert found.advantage[batch.mask].tolist() == near(golden[name])
    target = [a + v for a, v in zip(golden[name], golden["V"], strict=True)]
    assert found.extra[RETURN][batch.mask].tolist() == near(target)


@pytest.mark.parametrize("kind", ["std", "nostd"])
def test_g5_gigpo(kind):
    golden = GOLDEN["G5_gigpo"]
    state, gain = [7, 8, 9, 7, 8], [0, 0, 10, 0, 0]
    batch = batch_of([[1, 1, 1], [1, 1]], reward=[10, 0], turn_reward=gain, observation_hash=state)
    turns = turns_of(batch)
    assert discounted_returns(turns, turns.first(batch.turn_reward), 0.95).tolist() == near(
        golden["returns"]
    )
    scale = kind == "std"
    step = run(add_step_advantage(1.0, 0.95, scale=scale), batch).advantage
    assert per_turn(batch, step) == near(golden[f"A_S_{kind}"])
    episode = run(group_advantage_over_turns(scale=scale), batch)
    assert per_turn(batch, episode.advantage) == near(golden[f"A_E_{kind}"])
    both = run(add_step_advantage(1.0, 0.95, scale=scale), episode).advantage
    assert per_turn(batch, both) == near(golden[f"total_{kind}"])


def test_g4d_overlong():
    for length, penalty in GOLDEN["G4d_overlong"].items():
        found = overlong(torch.tensor([float(length)]), 20480, 4096)
        assert float(found) == near(penalty)


# ---- EPO ---------------------------------------------------------------------------------------


def test_g7_the_reference_is_the_mean_of_earlier_steps():
    transform = overall_history(0.5, 1.5)
    state = transform.init()
    for entropy in GOLDEN["G7_epo_pen"]["hist"]:
        batch = batch_of([[2]])
        batch = batch.with_(entropy=written(batch, [entropy, entropy]))
        batch, state = transform.apply(batch, state, 0)
    later, _ = transform.apply(batch_of([[1]]), state, 3)
    low, high = GOLDEN["G7_epo_pen"]["band"]
    assert later.extra[LOW][later.mask].tolist() == near([low])
    assert later.extra[HIGH][later.mask].tolist() == near([high])
    first, _ = transform.apply(batch_of([[1]]), transform.init(), 0)
    assert float(first.extra[LOW][first.mask]) == -math.inf
    assert float(first.extra[HIGH][first.mask]) == math.inf


def history(transform, steps):
    state = transform.init()
    for means in steps:
        batch = batch_of([[1] * len(means)])
        batch = batch.with_(entropy=written(batch, means))
        _, state = transform.apply(batch, state, 0)
    total, count = state
    return (total / count).tolist()


def test_g7e_histories_per_turn():
    """The released code pads a short step on the left, so its turns are misaligned."""
    golden = GOLDEN["G7e_history"]
    early = [[1, 0.8, 0.6], [0.8, 0.6, 0]]
    padded = padded_history(0.5, 1.5, 3, 0)
    assert history(padded, early) == near(golden["after_two"])
    assert history(padded, [*early, [0.9, 0.7]]) == near(golden["mean_after3"])
    true = turn_history(0.5, 1.5, 3)
    assert history(true, [early[0], [0.8, 0.6], [0.9, 0.7]]) == near(golden["nan_safe_right_pad"])


def test_a_turn_that_no_earlier_step_reached_has_no_corridor():
    transform = turn_history(0.5, 1.5, 4)
    batch = batch_of([[1, 1]])
    _, state = transform.apply(batch.with_(entropy=written(batch, [0.4, 0.8])), transform.init(), 0)
    longer = batch_of([[1, 1, 1]])
    found, _ = transform.apply(longer, state, 1)
    assert found.extra[HIGH][found.mask].tolist() == near([0.6, 1.2, math.inf])


def test_values_at_padding_never_affect_a_corridor():
    batch = batch_of([[1]])
    found = corridor(batch, torch.full((2,), 0.8), 0.5, 1.5)
    assert found.extra[LOW].tolist() == near([-math.inf, 0.4])


def test_g12_the_papers_success_rates_are_shares_of_48_episodes():
    for percent, (wins, again) in GOLDEN["G12_epo_48ths"].items():
        found = bootstrap_mean([1.0] * wins + [0.0] * (48 - wins), np.random.default_rng(0))
        assert f"{100 * found.value:.1f}" == percent and again == float(percent)


# ---- EMPG --------------------------------------------------------------------------------------


def empg(k, zeta, entropy, advantage, lengths=((1, 1, 1), (1, 1))):
    batch = batch_of([list(turns) for turns in lengths])
    batch = batch.with_(entropy=written(batch, entropy), advantage=written(batch, advantage))
    credit = chain(scale_by_confidence(k), reward_clarity(k, zeta))
    modulated = run(credit, batch)
    return per_turn(batch, modulated.advantage), per_turn(
        batch, run(centre_steps(), modulated).advantage
    )


def test_g8_empg():
    golden = GOLDEN["G8_empg"]
    scaled = rescale(torch.tensor(golden["H"], dtype=torch.float64))
    assert scaled.tolist() == near(golden["H_norm"])
    modulated, final = empg(1.0, 0.05, golden["H"], golden["A"])
    assert modulated == near(golden["A_mod"])
    assert final == near(golden["A_final"])


@pytest.mark.parametrize(
    ("name", "k", "zeta", "entropy"),
    [
        ("G8b_k0_z0", 0.0, 0.0, None),
        ("G8c_equalH", 1.0, 0.05, [0.5] * 5),
        ("G8d_zeta01", 1.0, 0.1, None),
    ],
)
def test_g8bcd_empg_variants(name, k, zeta, entropy):
    golden = GOLDEN["G8_empg"]
    modulated, final = empg(k, zeta, entropy or golden["H"], golden["A"])
    assert modulated == near(GOLDEN[name]["A_mod"])
    assert final == near(GOLDEN[name]["A_final"])


def test_g8e_the_entropy_of_a_step_is_the_mean_over_generated_tokens():
    golden = GOLDEN["G8e_step"]
    batch = batch_of([[3], [2]])
    entropy = written(batch, [0.2, 0.6, 1, 0.5, 0.1])
    entropy[~batch.mask] = 9
    assert turns_of(batch).mean(entropy).tolist() == near(golden["H_step"])


def test_g8f_empg_on_grpo():
    golden = GOLDEN["G8f_grpo_empg"]
    batch = batch_of([[1, 1, 1], [1, 1]], reward=[10, 0])
    batch = batch.with_(entropy=written(batch, GOLDEN["G8_empg"]["H"]))
    credit = chain(
        group_advantage(unbiased=True),
        scale_by_confidence(1.0),
        reward_clarity(1.0, 0.05),
        centre_steps(),
    )
    assert per_turn(batch, run(credit, batch).advantage) == near(golden["A_final"])


# ---- SPEAR -------------------------------------------------------------------------------------


def test_g9_schedules():
    golden = GOLDEN["G9_sched"]
    for name, schedule in {"mu": fade(200), "gamma": ramp(200), "gamma100": ramp(100)}.items():
        found = {step: schedule(int(step)) for step in golden[name]}
        assert found == near(golden[name]), name
    assert all(fade(200)(t) + ramp(200)(t) == near(1.0) for t in range(300))


def test_g9b_recalibration():
    golden = GOLDEN["G9b_recal"]
    means = torch.tensor([x for step in golden["history"] for x in step], dtype=torch.float64)
    reward = torch.tensor(golden["R"], dtype=torch.float64)
    found = recalibrate(reward, means)
    assert found.tolist() == near(golden["A_tilde"])
    assert (found > 1e-9).tolist() == golden["keep_paper"]
    assert (found >= -1e-9).tolist() == golden["keep_verl_agent_code"]
    even = torch.tensor([0, 2.5, 5, 7.5], dtype=torch.float64)
    assert float(recalibrate(torch.zeros(1).double(), even)) == near(-golden["P50_even"])


def test_g9c_power_of_two():
    found = {count: floor_power_of_two(int(count), 2048) for count in GOLDEN["G9c_pow2"]}
    assert found == GOLDEN["G9c_pow2"]


def test_g9d_rewards_for_acting():
    golden = GOLDEN["G9d_reward"]
    for form, key, name in [
        (count_acts, "len", "verl_agent"),
        (count_acts, "calls", "math_qwen25"),
        (count_acts_unless_won, "calls", "math_qwen3"),
    ]:
        for case in golden[name]:
            acts, outcome = torch.tensor([float(case[key])]), torch.tensor([float(case["outcome"])])
            total = outcome + fade(200)(case["t"]) * form(acts, outcome > 0)
            assert float(total) == near(case["total"]), case


def test_g9e_the_tasks_that_deviate_most_are_kept():
    golden = GOLDEN["G9e_filter"]
    names = list(golden["groups"])
    reward = [r for name in names for r in golden["groups"][name]]
    batch = batch_of([[1]] * 16, reward=reward, group=[i // 4 for i in range(16)])
    assert return_std(batch)[::4].tolist() == near([golden["std_pop"][name] for name in names])
    kept = per_turn(batch, highest_variance_tasks(batch, 0.75))[::4]
    assert {name for name, keep in zip(names, kept, strict=True) if keep} == set(golden["keep"])


def test_g9f_the_scale_of_replay():
    for step, scale in GOLDEN["G9f_sil_scale"].items():
        assert 2.0 * ramp(200)(int(step)) == near(scale)


# ---- AEPO --------------------------------------------------------------------------------------


def test_g10e_advantages_grow_with_entropy():
    golden = GOLDEN["G10e_ent_adv"]
    batch = batch_of([[3], [2]])
    inside = np.array(golden["mask"]) > 0

    def column(name):
        return written(batch, np.array(golden[name])[inside].tolist())

    batch = batch.with_(entropy=column("ent"), advantage=column("adv"))
    found = run(scale_by_entropy(0.2), batch).advantage[batch.mask]
    assert found.tolist() == near(np.array(golden["adv_out"])[inside].tolist())
