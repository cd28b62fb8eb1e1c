"""Progress of long work in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from agentgym.utils import progress
from agentgym.utils.progress import Display


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(clock, calls, total, every=0.0):
    """The lines of a stage, from pairs of seconds since its start and finished units."""
    output = io.StringIO()
    display = Display(Console(file=output, width=200), every=every)
    with display.stage("work", total) as advance:
        for seconds, done in calls:
            clock[0] = 1000.0 + seconds
            advance(done)
    return [" ".join(line.split()) for line in output.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(10, 1)], "work 1/10 0:10 eta 1:30"),
        ([(10, 1), (60, 4)], "work 4/10 1:00 eta 1:30"),
        ([(10, 10)], "work 10/10 0:10 eta 0:00"),
    ],
)
def test_the_eta_is_the_mean_time_per_unit_times_the_remaining_units(clock, calls, expected):
    assert lines(clock, calls, 10)[-1] == expected


def test_the_eta_of_a_resumed_stage_counts_only_its_own_units(clock):
    assert lines(clock, [(10, 7), (20, 8)], 10)[-1] == "work 8/10 0:20 eta 0:20"


def test_a_log_has_a_line_per_interval_and_one_at_the_end(clock):
    calls = [(second, second) for second in range(1, 101)]
    assert len(lines(clock, calls, 100, every=30.0)) == 4
