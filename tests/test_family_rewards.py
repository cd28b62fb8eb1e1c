"""Methods that shape rewards and advantages by entropy: golden numbers computed elsewhere."""

import itertools

import pytest
import torch
from family_fixture import GOLDEN, fixture, near

from agentgym.batch.turns import quantile_by, turns_of, windows
from agentgym.testing.batches import batch_of, written
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
from agentgym_trainers.dcpo import exact_entropy
from agentgym_trainers.ear import cut, relative_certainty, reshape_by_certainty
from agentgym_trainers.pear import charge_thoughts, unsettled

# ---- PEAR --------------------------------------------------------------------------------------


def thinking(entropy, thoughts, **about):
    """One episode with these entropies; its first tokens are thought."""
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
def test_w11_a_win_is_penalised_for_uncertain_thoughts(alpha, name):
    _, _, penalty, reward = GOLDEN["W11_pear"][name]
    batch = thinking([0.5, 0.7, 0.3, 0.1, 0.3], 3)
    assert float(unsettled(batch, alpha, silent_is_thought=True)) == near(penalty)
    assert charged(batch, alpha) == near(reward)


def test_w11_without_a_marker_all_tokens_are_thought_in_the_paper_and_action_here():
    batch = thinking([0.5, 0.7, 0.3, 0.0, 0.1, 0.3], 0)
    assert charged(batch, 1.0) == near(GOLDEN["W11_pear"]["no_marker"][3])
    assert charged(batch, 1.0, silent=False) == 1


def test_w11_a_lost_episode_has_no_penalty_and_a_bounded_one_keeps_wins_positive():
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
    return [
        float(column[batch.mask & (batch.episode_of_token == e)][0])
        for e in range(len(batch.group))
    ]


def test_w13_entropy_factor_in_both_forms():
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


def test_ear_compares_entropy_only_within_a_group():
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
    """One episode of three turns, with arbitrary entropies on observation tokens."""
    batch = batch_of(TURNS)
    return batch.with_(entropy=torch.where(batch.mask, written(batch, UNEVEN), 5.0))


def test_f2_means_are_over_generated_tokens():
    batch = three_turns()
    assert exact_entropy(batch) == near(0.72)
    assert turns_of(batch).mean(batch.entropy).tolist() == near([0.5, 1.0, 0.6])


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


def test_w9_a_window_mean_triggers_where_a_single_token_does_not():
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


def test_ares_shaping_is_bounded_and_never_rewards_an_easy_win():
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
    config = ARES(window_size=1, entropy_quantile=0.5)
    transform = explore_as_needed(config)
    found, (mean, known) = transform.apply(batch, transform.init(), 0)
    assert mean.tolist() == [0, 1, 0] and known.tolist() == [False, True, False]
    _, (mean, _) = transform.apply(batch.with_(won=~batch.won), (mean, known), 1)
    assert mean.tolist() == near([0, 0.9 * 1 + 0.1 * 4, 0])
    assert float(found.reward[0]) == 1 and float(found.reward[1]) > 0
