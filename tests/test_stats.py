"""Success rates and their intervals, checked against enumeration and simulation."""

from itertools import combinations, product
from math import comb, exp, lgamma, nan, pi, sqrt

import numpy as np
import pytest

from agentgym.evaluation.stats.bootstrap import bootstrap_difference, bootstrap_mean
from agentgym.evaluation.stats.intervals import Interval, difference_interval, mean_interval
from agentgym.evaluation.stats.passes import best_of_k, pass_at_k, pass_hat_k, worst_of_k
from agentgym.evaluation.stats.seeds import (
    bootstrap_over_seeds,
    difference_over_seeds,
    gain_over_seeds,
)
from agentgym.evaluation.stats.student import student_p, student_t


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


CASES = [(n, c, k) for n in range(1, 7) for c in range(n + 1) for k in range(1, n + 1)]


@pytest.mark.parametrize(("n", "c", "k"), CASES)
def test_pass_at_k_and_pass_hat_k_equal_the_fractions_of_all_subsets(n, c, k):
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, subsets)) / len(subsets))


@pytest.mark.parametrize("p", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_both_estimates_are_unbiased(p, k):
    n = 8
    chance = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    at = sum(chance[c] * pass_at_k(n, c, k) for c in range(n + 1))
    hat = sum(chance[c] * pass_hat_k(n, c, k) for c in range(n + 1))
    assert at == pytest.approx(1 - (1 - p) ** k)
    assert hat == pytest.approx(p**k)


@pytest.mark.parametrize("estimate", [pass_at_k, pass_hat_k])
@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_impossible_counts_are_rejected(estimate, n, c, k):
    with pytest.raises(ValueError, match=r"play at least k|successes in"):
        estimate(n, c, k)


def test_the_interval_equals_that_of_all_bootstrap_resamples_of_the_tasks():
    values = [0.0, 0.25, 0.5, 1.0, 0.9]
    every = [sum(draw) / 5 for draw in product(values, repeat=5)]
    low, high = np.percentile(every, [2.5, 97.5])
    found = bootstrap_mean(values, rng(), draws=200_000)
    assert found.value == pytest.approx(sum(values) / 5)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_resampling_many_tasks_in_chunks_gives_the_same_interval():
    values = rng(1).random(30_000)
    found = bootstrap_mean(values, rng(), draws=300)
    half = 1.96 * values.std() / sqrt(len(values))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert found.low < values.mean() < found.high


def test_the_same_generator_gives_the_same_interval():
    assert bootstrap_mean([0, 0.5, 1], rng(3)) == bootstrap_mean([0, 0.5, 1], rng(3))


def test_an_empty_panel_gives_nan():
    assert all(np.isnan(bootstrap_mean([], rng())))


def test_a_panel_without_success_has_an_upper_bound_above_zero():
    """If a fraction q of tasks succeeds, all M tasks fail with probability (1 - q)**M = 5 %."""
    found = bootstrap_mean([0.0] * 32, rng(), support=(0.0, 1.0))
    assert (found.value, found.low) == (0, 0)
    assert (1 - found.high) ** 32 == pytest.approx(0.05)
    top = bootstrap_mean([1.0] * 32, rng(), support=(0.0, 1.0))
    assert (top.low, top.value, top.high) == pytest.approx((1 - found.high, 1, 1))
    assert bootstrap_mean([0.0] * 32, rng()) == Interval(0, 0, 0)


def test_the_paired_difference_cancels_task_difficulty():
    before = rng(1).random(50)
    found = bootstrap_difference(before, before + 0.125, rng())
    assert found == pytest.approx((0.125, 0.125, 0.125))
    apart = bootstrap_mean(before, rng())
    assert apart.high - apart.low > 0.1


def test_an_unchanged_panel_has_an_interval_on_both_sides_of_zero():
    found = bootstrap_difference([0.0] * 10, [0.0] * 10, rng(), support=(0.0, 1.0))
    assert found.low == -found.high < 0 == found.value


def test_a_difference_between_different_panels_is_rejected():
    with pytest.raises(ValueError, match="4 before and 5 after"):
        bootstrap_difference([0.0] * 4, [0.0] * 5, rng())


def test_seeds_and_tasks_are_both_resampled():
    block = rng(11).random((3, 4))
    every = [
        block[np.ix_(seeds, tasks)].mean()
        for seeds in product(range(3), repeat=3)
        for tasks in product(range(4), repeat=4)
    ]
    low, high = np.percentile(every, [2.5, 97.5])
    found = bootstrap_over_seeds(block, rng(), draws=200_000)
    assert found == pytest.approx((block.mean(), low, high), abs=0.01)
    only_tasks = bootstrap_over_seeds(np.ones((4, 1)) * [0.1, 0.9], rng())
    assert (only_tasks.low, only_tasks.high) == pytest.approx((0.1, 0.9))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 20, 61])
def test_the_t_quantile_matches_the_integral_of_the_density(freedom):
    edge = student_t(freedom)
    t = np.linspace(-edge, edge, 200_001)
    log_scale = lgamma((freedom + 1) / 2) - lgamma(freedom / 2)
    density = exp(log_scale) / sqrt(freedom * pi) * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
    assert np.trapezoid(density, t) == pytest.approx(0.95, abs=1e-6)


def test_the_t_quantile_agrees_with_printed_tables():
    table = {1: 12.706, 2: 4.303, 5: 2.571, 9: 2.262, 30: 2.042}
    assert {n: round(student_t(n), 3) for n in table} == table
    assert student_t(10, 0.99) == pytest.approx(3.169, abs=5e-4)


def test_five_training_seeds_give_a_t_interval():
    found = gain_over_seeds([0.10, 0.20, 0.15, 0.30, 0.25])
    half = 2.776445 * np.std([0.10, 0.20, 0.15, 0.30, 0.25], ddof=1) / sqrt(5)
    assert found == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)


def test_one_training_seed_has_no_interval():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        gain_over_seeds([0.4])


def test_a_nominal_95_percent_interval_covers_the_truth_about_95_percent_of_the_time():
    """Tasks differ in difficulty, shared by a task's episodes; the true value is over new tasks.

    The same intervals from episodes, as if they were independent, must be far off: otherwise
    the simulation could not distinguish a clustered interval from a naive one.
    """
    chance, world, times = rng(5), rng(6), 500
    truth = 0.5 * (1 - 1 / 3) + 0.5 * (1 - 1 / 10)  # E[1 - (1 - p)**2], uniform and Beta(3, 1)
    covered = naive = 0
    for _ in range(times):
        easy = world.random(60) < 0.5
        p = np.where(easy, world.beta(3, 1, 60), world.random(60))
        wins = world.binomial(8, p)
        values = [pass_at_k(8, int(c), 2) for c in wins]
        found = bootstrap_mean(values, chance, support=(0.0, 1.0), draws=1000)
        covered += found.low <= truth <= found.high
        share = wins.sum() / 480
        naive += abs(share - (0.5 * 0.75 + 0.5 * 0.5)) <= 1.96 * sqrt(share * (1 - share) / 480)
    assert 0.93 <= covered / times <= 0.97
    assert naive / times < 0.85


def test_a_paired_difference_covers_the_true_gain_about_95_percent_of_the_time():
    chance, world, times = rng(7), rng(8), 500
    covered = 0
    for _ in range(times):
        p = world.random(50)
        before = world.binomial(8, p) / 8
        after = world.binomial(8, p + 0.4 * (1 - p)) / 8
        found = bootstrap_difference(before, after, chance, support=(0.0, 1.0), draws=1000)
        covered += found.low <= 0.2 <= found.high
    assert 0.93 <= covered / times <= 0.97


def test_the_interval_allows_for_a_rare_kind_of_task_missing_from_the_panel():
    """On 3 % of the tasks the policy always fails; 16 % of panels of 60 contain none of them."""
    chance, world, times = rng(10), rng(11), 400
    plain = wide = 0
    for _ in range(times):
        values = (world.random(60) > 0.03).astype(float)
        plain += bootstrap_mean(values, chance, draws=500).low <= 0.97
        found = bootstrap_mean(values, chance, support=(0.0, 1.0), draws=500)
        wide += found.low <= 0.97 <= found.high
    assert plain / times < 0.88
    assert wide / times >= 0.95


def test_t_intervals_over_four_seeds_cover_as_nominal():
    world, times = rng(9), 2000
    inside = 0
    for _ in range(times):
        found = gain_over_seeds([float(v) for v in world.normal(0.3, 0.1, 4)])
        inside += found.low <= 0.3 <= found.high
    assert 0.94 <= inside / times <= 0.96


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_best_and_worst_of_k_are_the_means_over_all_draws(k):
    scores = [0.3, 0.0, 1.0, 0.3, 0.75]
    draws = list(combinations(scores, k))
    assert best_of_k(scores, k) == pytest.approx(sum(map(max, draws)) / len(draws))
    assert worst_of_k(scores, k) == pytest.approx(sum(map(min, draws)) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), CASES)
def test_of_failures_and_successes_they_are_pass_at_k_and_pass_hat_k(n, c, k):
    scores = [1.0] * c + [0.0] * (n - c)
    assert best_of_k(scores, k) == pytest.approx(pass_at_k(n, c, k))
    assert worst_of_k(scores, k) == pytest.approx(pass_hat_k(n, c, k))


def test_more_draws_than_scores_are_refused():
    with pytest.raises(ValueError, match="play at least k"):
        best_of_k([0.5], 2)


def test_single_episodes_have_the_score_interval_of_wilson():
    """40 tasks, one episode each, 10 won: Wilson's formula, with nothing to estimate beside."""
    found = mean_interval([1.0] * 10 + [0.0] * 30, (0.0, 1.0))
    p, n, t = 0.25, 40, 1.9599640
    middle, half = (p + t * t / (2 * n)) / (1 + t * t / n), sqrt(p * (1 - p) / n + (t / n / 2) ** 2)
    assert found == pytest.approx(
        (p, middle - t * half / (1 + t * t / n), middle + t * half / (1 + t * t / n)), abs=1e-6
    )


def test_episodes_of_a_task_that_agree_say_as_much_as_one_and_others_more():
    alike = mean_interval([0.0, 1.0] * 20, (0.0, 1.0))
    apart = mean_interval([0.4, 0.6] * 20, (0.0, 1.0))
    assert alike.high - alike.low > 0.29
    assert apart.high - apart.low < 0.12


def test_a_variance_that_is_estimated_widens_the_interval_by_t():
    """Two far tasks of 12 make the variance uncertain: freedom from the fourth moments, by hand."""
    values = np.array([0.4] * 5 + [0.6] * 5 + [0.1, 0.9])
    offset, s2 = values - 0.5, float(np.square(values - 0.5).mean())
    noise = float(np.square((np.square(offset) - s2) / s2).mean())
    t = student_t(int(11 / noise))
    trials = 12 * 0.25 / s2
    half = sqrt(t**2 * (0.25 / trials + t**2 / (4 * trials**2))) / (1 + t**2 / trials)
    found = mean_interval(values, (0.0, 1.0))
    assert t > 2.4 and found == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_two_tasks_have_one_degree_of_freedom():
    """Their fourth moment shows nothing, which must not pass for certainty."""
    found = mean_interval([0.49, 0.51], (0.0, 1.0))
    assert found.high - found.low > 0.15


def test_the_interval_is_the_same_on_every_scale_and_mirrored():
    values = rng(3).random(20)
    unit = mean_interval(values, (0.0, 1.0))
    scaled = mean_interval(10 * values - 4, (-4.0, 6.0))
    assert scaled == pytest.approx([10 * each - 4 for each in unit])
    mirrored = mean_interval(1 - values, (0.0, 1.0))
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - unit.high, 1 - unit.low))


def test_a_panel_that_is_always_won_leaves_room_below_and_none_above():
    found = mean_interval([1.0] * 32, (0.0, 1.0))
    assert found == pytest.approx((1.0, 32 / (32 + 1.9599640**2), 1.0), abs=1e-6)


def test_no_interval_is_narrower_than_a_missed_task_would_make_it():
    """Nearly equal values at the top: the measured spread says nothing of tasks not seen."""
    found = mean_interval([0.99, 1.0] * 32, (0.0, 1.0))
    assert found.low == pytest.approx(0.995 * 64 / 65.25)


def test_without_support_the_interval_is_that_of_student():
    values = [3.0, 5.0, 8.0, 4.0]
    half = 3.182446 * np.std(values, ddof=1) / 2
    assert mean_interval(values) == pytest.approx((5.0, 5 - half, 5 + half), abs=1e-5)
    assert all(np.isnan(mean_interval([])))
    one = mean_interval([2.0])
    assert one.value == 2 and np.isnan(one.low)


def test_the_analytic_difference_is_a_paired_t_interval_inside_its_bounds():
    before, after = [0.0, 0.5, 0.25, 1.0], [0.5, 0.75, 0.25, 0.75]
    half = 3.182446 * np.std([0.5, 0.25, 0, -0.25], ddof=1) / 2
    found = difference_interval(before, after, (0.0, 1.0))
    assert found == pytest.approx((0.125, 0.125 - half, 0.125 + half), abs=1e-5)
    assert difference_interval([0, 0], [0, 1], (0.0, 1.0)).high == 1
    same = difference_interval([0.5] * 10, [0.5] * 10, (0.0, 1.0))
    assert same.low == -same.high < 0
    assert (1 - same.high) ** 10 == pytest.approx(0.05)
    with pytest.raises(ValueError, match="4 before and 5 after"):
        difference_interval([0.0] * 4, [0.0] * 5)


@pytest.mark.parametrize(
    ("shape", "tasks", "episodes", "k"), [((1, 1), 32, 8, 4), ((0.3, 1.2), 64, 4, 1)]
)
def test_analytic_intervals_cover_as_nominal(shape, tasks, episodes, k):
    """The whole table is in docs/how-to/intervals.md, from `scripts/bench coverage`."""
    world, times = rng(21), 3000
    by_wins = np.array([pass_at_k(episodes, c, k) for c in range(episodes + 1)])
    a, b = shape
    truth = 1 - exp(lgamma(b + k) + lgamma(a + b) - lgamma(b) - lgamma(a + b + k))
    covered = 0
    for _ in range(times):
        found = mean_interval(
            by_wins[world.binomial(episodes, world.beta(a, b, tasks))], (0.0, 1.0)
        )
        covered += found.low <= truth <= found.high
    assert 0.94 <= covered / times <= 0.965


def test_the_t_quantile_of_many_tasks_joins_the_exact_one():
    assert student_t(1001) == pytest.approx(student_t(1000), abs=3e-6)
    assert student_t(10**6) == pytest.approx(1.959966, abs=2e-6)


def test_p_values_are_those_of_printed_tables():
    assert student_p(2.571, 5) == pytest.approx(0.05, abs=1e-4)
    assert student_p(-4.604, 4) == pytest.approx(0.01, abs=1e-4)
    assert student_p(0.0, 3) == 1


def test_a_difference_over_seeds_adds_the_variances_of_tasks_and_seeds():
    """Golden numbers by hand: two seeds and three tasks a side."""
    before = np.array([[0.0, 0.5, 0.5], [0.5, 0.5, 1.0]])
    after = np.array([[0.5, 0.5, 1.0], [1.0, 1.0, 1.0]])
    change = after.mean(0) - before.mean(0)
    over_tasks = np.var(change, ddof=1) / 3
    over_seeds = [np.var(arm.mean(1), ddof=1) / 2 for arm in (before, after)]
    rest = 0.0
    for arm in (before, after):
        grand = [
            [arm[s, t] - arm[s].mean() - arm[:, t].mean() + arm.mean() for t in range(3)]
            for s in range(2)
        ]
        rest += (np.array(grand) ** 2).sum() / 2 / 6
    variance = max(over_tasks + sum(over_seeds) - rest, over_tasks, sum(over_seeds))
    freedom = int(variance**2 / (over_tasks**2 / 2 + sum(v**2 for v in over_seeds)))
    found = difference_over_seeds(before, after)
    assert found.freedom == freedom
    half = student_t(freedom) * sqrt(variance)
    assert found.interval == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half))
    assert found.p == pytest.approx(student_p(1 / 3 / sqrt(variance), freedom))


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not():
    tasks = rng(4).random((1, 40))
    steady = difference_over_seeds(np.repeat(tasks, 4, 0), np.repeat(tasks + 0.1, 4, 0))
    assert steady.interval == pytest.approx((0.1, 0.1, 0.1)) and steady.p < 1e-9
    luck = np.array([[0.0], [0.1], [0.2], [0.3]])
    found = difference_over_seeds(tasks + luck, tasks + luck)
    assert found.interval.high > 0.1 and found.p == 1


@pytest.mark.parametrize(
    "shapes", [((1, 4), (2, 4)), ((2, 1), (2, 1)), ((2, 3), (2, 4)), ((3,), (3,))]
)
def test_seeds_without_a_spread_are_refused(shapes):
    with pytest.raises(ValueError, match=r"at least 2 of each|with the same tasks"):
        difference_over_seeds(*(np.zeros(shape) for shape in shapes))


def test_intervals_over_seeds_and_tasks_cover_as_nominal():
    world, covered, times = rng(12), 0, 800
    for _ in range(times):
        hard = world.normal(0, 0.15, 40)
        arms = [
            mean
            + hard
            + world.normal(0, 0.05, (4, 1))
            + world.normal(0, 0.1, (1, 40))
            + world.normal(0, 0.1, (4, 40))
            for mean in (0.4, 0.5)
        ]
        low, high = difference_over_seeds(*arms).interval[1:]
        covered += low <= 0.1 <= high
    assert 0.93 <= covered / times <= 0.98


def test_an_estimate_without_an_interval_is_the_value_alone():
    assert str(Interval(0.5, 0.4, 0.6)) == "0.50 [0.40, 0.60]"
    assert Interval(0.1, -0.2, 0.4).signed == "+0.10 [-0.20, +0.40]"
    alone = Interval(6.0, nan, nan)
    assert (str(alone), alone.signed) == ("6.00", "+6.00")
