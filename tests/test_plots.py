"""Plots of a run, and the packages they need."""

import math
import subprocess
import sys

import numpy as np
import pytest

from agentgym.env.panel import panel
from agentgym.errors import ConfigError
from agentgym.evaluation.plots import plot_run, smooth
from agentgym.evaluation.records import EpisodeRecord
from agentgym.evaluation.report import Report
from agentgym.evaluation.spec import EvalSpec
from agentgym.types import Stop, Trajectory

PANEL = panel("agentgym/Hotter-v0").head(40)


def report(share, seed, tasks=PANEL, episodes=8):
    rng = np.random.default_rng(seed)
    skill = rng.beta(2 * share, 2 * (1 - share), len(tasks))
    records = [
        EpisodeRecord.of(Trajectory(task, sample, "", "", (), Stop.TERMINATED, float(won), won))
        for task, p in zip(tasks.tasks, skill, strict=True)
        for sample, won in enumerate(bool(draw < p) for draw in rng.random(episodes))
    ]
    return Report.of(tasks, EvalSpec("m"), records, episodes=episodes)


def metrics(steps=120):
    rng = np.random.default_rng(0)
    rate = 0.15 + 0.65 / (1 + np.exp(-(np.arange(steps) - 50) / 15))
    values = rng.binomial(64, rate) / 64
    return [{"step": step, "episode/success": float(v)} for step, v in enumerate(values, start=1)]


BEFORE, AFTER = report(0.2, 1), report(0.7, 2)


def test_the_plot_is_a_png_that_fits_a_page(tmp_path):
    plot_run(metrics(), BEFORE, AFTER, tmp_path / "run.png")
    data = (tmp_path / "run.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert 1200 <= width <= 2000
    assert 500 <= height <= 1000


def test_one_step_and_one_episode_per_task_can_be_drawn(tmp_path):
    few = PANEL.head(1)
    plot_run(metrics(1), report(0.2, 1, few, 1), report(0.7, 2, few, 1), tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    assert "<svg" in text


def test_steps_without_the_metric_leave_no_gap(tmp_path):
    odd = [{"step": 50, "eval/score": 0.5}, {"step": 50, "episode/success": math.nan}]
    plot_run(metrics(), BEFORE, AFTER, tmp_path / "a.png")
    plot_run(metrics()[:50] + odd + metrics()[50:], BEFORE, AFTER, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("width", [1, 3, 7])
def test_smoothing_is_the_mean_of_the_window_around_each_step(width):
    values = np.random.default_rng(0).random(20)
    half = width // 2
    naive = [values[max(0, i - half) : i + half + 1].mean() for i in range(20)]
    np.testing.assert_allclose(smooth(values, width), naive)


def test_an_unknown_metric_is_reported_with_a_suggestion(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'episode/success'"):
        plot_run(metrics(), BEFORE, AFTER, tmp_path / "run.png", success="episode/sucess")
    assert not (tmp_path / "run.png").exists()


def test_reports_of_different_panels_are_not_drawn_side_by_side(tmp_path):
    other = report(0.7, 2, PANEL.head(39))
    with pytest.raises(ConfigError, match="different panels"):
        plot_run(metrics(), BEFORE, other, tmp_path / "run.png")


def python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_evaluating_and_checking_load_neither_matplotlib_nor_torch():
    names = "agentgym, agentgym.evaluation.evaluate, agentgym.evaluation.plots, agentgym.testing"
    code = f"import sys, {names}; print([m for m in ('matplotlib', 'torch') if m in sys.modules])"
    assert python(code) == "[]"


def test_without_matplotlib_the_error_states_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from agentgym.evaluation.plots import plot_run\n"
        "try: plot_run([], None, None, None)\n"
        "except Exception as problem: print(type(problem).__name__, problem)"
    )
    assert python(code) == "MissingExtra plots need matplotlib: pip install 'agentic-gym[train]'"
