"""How many tasks and episodes an evaluation needs: formulas by hand, and by simulation."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from agentgym.cli import main
from agentgym.errors import ConfigError
from agentgym.evaluation.stats.intervals import difference_interval, mean_interval
from agentgym.evaluation.stats.planning import (
    Difficulty,
    margin_of,
    observed_difficulty,
    observed_pairing,
    tasks_needed,
)


def chances(difficulty, rng, tasks):
    """Chances of success from a beta distribution with this mean and intraclass correlation."""
    total = 1 / difficulty.icc - 1
    return rng.beta(total * difficulty.base, total * (1 - difficulty.base), tasks)


def test_the_variance_is_that_of_the_design_effect():
    hard = Difficulty(base=0.3, icc=0.5, pairing=0.6)
    assert hard.task_variance(1) == pytest.approx(0.21)
    assert hard.task_variance(8) == pytest.approx(0.21 / 8 * (1 + 7 * 0.5))
    miller = 2 * 0.21 * 0.5 * (1 - 0.6) + 2 * 0.21 * 0.5 / 8
    assert hard.task_variance(8, paired=True) == pytest.approx(miller)
    assert replace(hard, pairing=1.0).task_variance(10**9, paired=True) == pytest.approx(
        0, abs=1e-9
    )


def test_the_variance_is_that_of_simulated_tasks():
    rng, hard = np.random.default_rng(0), Difficulty(base=0.3, icc=0.4)
    for episodes in (1, 4, 16):
        shares = rng.binomial(episodes, chances(hard, rng, 200_000)) / episodes
        assert shares.var() == pytest.approx(hard.task_variance(episodes), rel=0.02)


def test_the_number_of_tasks_is_the_smallest_that_is_enough():
    """0.5 and one episode: 1.96**2 * 0.25 / 0.03**2 is 1067.1; t instead of z makes it 1070."""
    assert tasks_needed(0.25, 0.03) == 1070
    assert margin_of(0.25, 1070) <= 0.03 < margin_of(0.25, 1069)
    with_power = tasks_needed(0.1, 0.05, power=0.8)
    assert with_power == pytest.approx((1.9600 + 0.8416) ** 2 * 0.1 / 0.05**2, rel=0.01)


def test_planned_intervals_have_the_planned_length():
    rng, hard = np.random.default_rng(1), Difficulty(base=0.4, icc=0.4)
    tasks = tasks_needed(hard.task_variance(4), 0.05)
    halves = []
    for _ in range(200):
        found = mean_interval(rng.binomial(4, chances(hard, rng, tasks)) / 4, (0.0, 1.0))
        halves.append((found.high - found.low) / 2)
    assert np.mean(halves) == pytest.approx(0.05, rel=0.03)


def test_a_planned_difference_is_found_as_often_as_planned():
    """Half of the tasks have the same chance for both, the others an independent one."""
    rng, hard, times = np.random.default_rng(2), Difficulty(base=0.4, icc=0.4, pairing=0.5), 600
    tasks = tasks_needed(hard.task_variance(4, paired=True), 0.08, power=0.8)
    found = 0
    for _ in range(times):
        first, other = chances(hard, rng, tasks), chances(hard, rng, tasks)
        second = np.where(rng.random(tasks) < 0.5, first, other)
        before, after = rng.binomial(4, first) / 4, rng.binomial(4, second) / 4
        found += difference_interval(before, after + 0.08).low > 0
    assert found / times == pytest.approx(0.8, abs=0.05)


def test_difficulty_and_pairing_are_recovered_from_played_episodes():
    rng, hard = np.random.default_rng(3), Difficulty(base=0.35, icc=0.45)
    first = chances(hard, rng, 20_000)
    second = np.where(rng.random(20_000) < 0.6, first, chances(hard, rng, 20_000))
    wins, others = rng.binomial(8, first), rng.binomial(8, second)
    found = observed_difficulty(wins, 8)
    assert (found.base, found.icc) == pytest.approx((0.35, 0.45), abs=0.015)
    assert observed_pairing(wins, others, 8) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Difficulty(base=1.0), "base is 1"),
        (lambda: Difficulty(icc=1.5), "icc is 1.5, expected 0 to 1"),
        (lambda: tasks_needed(0.25, 0.0), "margin is 0"),
        (
            lambda: tasks_needed(0.25, 2e-4),
            "no 10,000,000 tasks are enough for a margin of 0.02 points",
        ),
        (lambda: tasks_needed(0.25, 0.1, power=1.0), "power is 1"),
        (lambda: margin_of(0.25, 1), "expected at least 2"),
        (lambda: observed_difficulty([4, 4], 4), "ended alike"),
        (lambda: observed_difficulty([1, 0], 1), "at least 2 of both"),
    ],
)
def test_impossible_plans_are_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_the_command_line_answers_with_a_table(capsys):
    assert main(["plan-eval", "--margin", "3", "--n", "1", "8"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "1,070", "1,070", "3.0"] in rows
    variance = Difficulty().task_variance(8)
    eight = tasks_needed(variance, 0.03)
    assert ["8", f"{eight:,}", f"{8 * eight:,}", "3.0"] in rows
    assert main(["plan-eval", "--tasks", "134", "--n", "1", "--paired"]) == 0
    reached = 100 * 1.97796 * sqrt(Difficulty().task_variance(1, paired=True) / 134)
    assert f"{reached:.1f}" in capsys.readouterr().out
    assert main(["plan-eval", "--n", "0"]) == 2
    assert main(["plan-eval", "--like", "nothing.jsonl"]) == 2
