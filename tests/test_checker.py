"""The environment checker finds every kind of violation and states where to look."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import deque
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from defects import DEFECTS, Corridor, Drawers
from defects.answers import ForgetsToReturn
from gymnasium.utils.env_checker import check_env

from agentgym.cli import main
from agentgym.env.base import Outcome
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.testing import CheckSettings, budget, check_environment
from agentgym.testing.environments import CHECKS, findings
from agentgym.testing.findings import Verdict
from agentgym.testing.hanging import calls_return_within
from agentgym.testing.harness import Harness

QUICK = CheckSettings(steps=60, resets=200, seconds=60.0)
"""Enough for small environments; the time limits allow for a busy machine."""

LEAST = CheckSettings(steps=60, resets=200, budget=1e-9)
"""No time at all: every check plays its smallest number of repetitions."""

TABLE = Path(__file__).parent.parent / "docs" / "how-to" / "check-an-environment.md"


@pytest.fixture
def registered():
    made = []

    def register(entry, turns=12):
        id_ = f"broken/{entry.__name__}-v0"
        gymnasium.register(id_, entry, max_episode_steps=turns)
        made.append(id_)
        return id_

    yield register
    for id_ in made:
        del gymnasium.registry[id_]


class RemembersTheLast(Corridor):
    """Takes memory for a while, as a pool of objects does, and then no more."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.last = deque(maxlen=150)

    def start(self, task, rng):
        opening = super().start(task, rng)
        self.last.append(f"{rng.integers(9)} {opening.observation * 8}")
        return opening


@pytest.mark.parametrize("correct", [Corridor, Drawers, RemembersTheLast])
def test_a_correct_environment_passes_every_check(registered, correct):
    found = list(findings(registered(correct), QUICK))
    assert [finding.note for finding in found if finding.verdict is Verdict.FAILED] == []
    assert len(found) == len(CHECKS)
    skipped = {finding.check for finding in found if finding.verdict is Verdict.SKIPPED}
    assert "second process agrees" not in skipped
    if correct is Drawers:
        assert skipped == {"seeds change episodes"}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.world.__name__)
def test_a_defective_environment_fails_and_the_cause_is_named(registered, defect):
    with pytest.raises(AssertionError, match=defect.sentence) as problem:
        check_environment(registered(defect.world), QUICK)
    assert defect.world.__name__ in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.world.__name__)
def test_the_smallest_number_of_repetitions_finds_every_defect(registered, defect):
    with pytest.raises(AssertionError, match=defect.sentence):
        check_environment(registered(defect.world), LEAST)


def test_a_check_without_time_says_what_it_left_out(registered, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = {finding.check: finding for finding in findings(registered(Drawers), LEAST)}
    assert {f.verdict for f in found.values()} == {Verdict.PASSED, Verdict.SKIPPED}
    assert re.fullmatch(r"\d of \d+ tasks", found["random agents lose"].cut)
    assert re.fullmatch(r"\d of \d+ openings", found["openings hide the solution"].cut)
    assert found["splits are disjoint"].cut == ""
    assert main(["check", "broken/Drawers-v0", "--effort.budget", "1e-9"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "passed, cut" in shown and "(cut: 4 of" in shown
    assert re.search(r"\d+ checks passed on fewer repetitions than they want", shown)


def test_without_a_limit_on_all_checks_nothing_of_a_quick_world_is_left_out(registered):
    whole = CheckSettings(steps=60, resets=200, seconds=60.0, budget=0)
    assert not any(finding.cut for finding in findings(registered(Corridor), whole))


def test_a_budget_is_shared_out_and_lasts_longer_on_a_busy_machine(monkeypatch, tmp_path):
    now, waited, core = 0.0, 0.0, tmp_path / "schedstat"

    def later(seconds, waits=0.0):
        nonlocal now, waited
        now, waited = now + seconds, waited + seconds * waits
        core.write_text(f"123 {round(waited * 1e9)} 7\n")

    monkeypatch.setattr(budget.time, "monotonic", lambda: now)
    monkeypatch.setattr(budget, "_CORE", core)
    later(0)
    shared = budget.Budget(40.0, 10.0, 20)
    shared.begin()
    assert shared.share == 2.0  # An equal part.
    late = shared.hurry()
    later(1.9)
    assert not late()
    later(0.2)
    assert late()
    late = shared.hurry()
    later(7.9, waits=0.75)
    assert not late()
    later(0.2, waits=0.75)
    assert late()
    shared.begin()
    assert shared.share == pytest.approx((40 - 2.1 - 2.025) / 19)
    assert budget.Budget(0, 10.0, 20).share == 0
    core.unlink()  # Another system: seconds of the clock.
    unlimited = budget.Budget(0, 10.0, 20)
    unlimited.begin()
    assert unlimited.share == 10.0
    late = unlimited.hurry()
    now += 10.1
    assert late()


@pytest.mark.skipif(not budget._CORE.exists(), reason="the system does not tell waits for a core")
def test_a_thread_that_shares_its_core_is_not_charged_for_the_others_time():
    core = {min(os.sched_getaffinity(0))}
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import os; os.sched_setaffinity(0, {core})\nprint(1, flush=True)\nwhile 1: 0",
        ],
        stdout=subprocess.PIPE,
    )
    assert other.stdout.read(1) == b"1"
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)
    try:
        watch, begun, cpu = budget.Stopwatch(), time.monotonic(), time.thread_time()
        while time.thread_time() - cpu < 0.5:
            pass
        charged, passed = watch.read(), time.monotonic() - begun
    finally:
        os.sched_setaffinity(0, before)
        other.kill()
        other.wait()
        other.stdout.close()
    assert charged == pytest.approx(0.5, abs=0.1) and passed > 1.3 * charged


def test_one_error_that_fails_many_checks_gives_one_finding(registered):
    """Every check fails on it; the first finding names file and line, others refer to it."""
    found = list(findings(registered(ForgetsToReturn), QUICK))
    failed = [finding for finding in found if finding.verdict is Verdict.FAILED]
    assert len(failed) == 1 and "answers.py, line" in failed[0].note
    referring = [finding for finding in found if failed[0].check in finding.note]
    assert len(referring) > 10


class Loops(Corridor):
    """Hangs on one action, and swallows exceptions."""

    def act(self, action):
        while action == "":
            with contextlib.suppress(Exception):
                time.sleep(0.01)
        return super().act(action)


class LoopsWhenMade(Corridor):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        while kwargs.get("admissible"):
            pass


@pytest.mark.parametrize(("kind", "call"), [(Loops, "step"), (LoopsWhenMade, "world")])
def test_an_endless_loop_gives_one_finding_with_its_line(registered, kind, call):
    hasty = CheckSettings(steps=60, resets=100, seconds=5.0, call_timeout=3.0)
    found = list(findings(registered(kind), hasty))
    failed = [finding for finding in found if finding.verdict is Verdict.FAILED]
    assert len(failed) == 1
    assert re.search(
        rf"{call}\(\) did not return within 3 s; .*test_checker.py, line", failed[0].note
    )
    assert {finding.verdict for finding in found[found.index(failed[0]) + 1 :]} == {Verdict.SKIPPED}


def test_a_timer_set_before_a_check_still_runs_after_it():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with calls_return_within(60):
            time.sleep(0.8)
        assert not rang
        time.sleep(1.2)
        assert len(rang) == 1
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_a_turn_limit_other_than_the_registered_one_is_reported(registered):
    class Impatient(gymnasium.Wrapper):
        """Counts turns by itself, above the environment, where the registered limit should."""

        def step(self, action):
            observation, reward, terminated, _, info = self.env.step(action)
            return observation, reward, terminated, True, info

    def impatient(**kwargs):
        return Impatient(Corridor(**kwargs))

    with pytest.raises(AssertionError, match="leave limits to Gymnasium"):
        check_environment(registered(impatient), QUICK)


def test_an_environment_that_no_other_process_can_import_is_not_compared_there(registered):
    class Local(Corridor):
        pass

    found = {finding.check: finding for finding in findings(registered(Local), QUICK)}
    elsewhere = found["second process agrees"]
    assert elsewhere.verdict is Verdict.SKIPPED and "module:Class" in elsewhere.note


def test_checking_an_environment_leaves_the_global_generator_as_it_was(registered):
    np.random.seed(5)
    check_environment(registered(Corridor), QUICK)
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()


def test_the_documented_table_matches_what_gymnasiums_checker_catches():
    """Every defect has its row, and the last column is measured here."""
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", TABLE.read_text(), re.MULTILINE))
    assert rows == {entry.world.__name__: by_gymnasium(entry.world) for entry in DEFECTS}


def by_gymnasium(kind):
    id_ = f"broken/{kind.__name__}-v0"
    gymnasium.register(id_, kind, max_episode_steps=12)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_env(world(id_))
    except Exception:
        return "yes"
    finally:
        del gymnasium.registry[id_]
    return "no"


def test_the_command_lists_passed_checks_and_exits_with_status_zero(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    words = ["check", "hotter", "--env-args", "high", "60"]
    quick = ["--effort.steps", "40", "--effort.resets", "100"]
    assert main([*words, *quick]) == 0
    shown = capsys.readouterr().out
    assert f"check {len(CHECKS)}/{len(CHECKS)}" in " ".join(shown.split())
    for row in ("oracle wins", "second process agrees", "resets leak no memory"):
        assert re.search(rf"{row} +│ passed", shown), shown
    assert re.search("seeds change episodes +│ skipped", shown)
    assert "agentgym/Hotter-v0 keeps the contract" in shown


def test_the_command_lists_violations_and_exits_with_status_one(registered, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    from defects.state import SharesStateWithItsFork

    quick = ["--effort.steps", "40", "--effort.resets", "100"]
    assert main(["check", registered(SharesStateWithItsFork), *quick]) == 1
    shown = capsys.readouterr().out
    assert re.search("forks are exact and independent +│ failed", shown)
    assert "share no mutable state" in shown and "1 violation" in shown


def test_a_slow_environment_is_checked_with_the_requested_number_of_episodes(registered):
    hasty = CheckSettings(steps=8, resets=10, seconds=1e-9, episodes=2)
    notes = {finding.check: finding.note for finding in findings(registered(Corridor), hasty)}
    assert re.search("of 2 episodes won", notes["random agents lose"])
    assert notes["repeating agents lose"].endswith("in 2 tasks")
    with pytest.raises(ConfigError, match=r"effort\.episodes is 1, expected at least 2"):
        check_environment("agentgym/Hotter-v0", CheckSettings(episodes=1))


def test_a_mistake_in_the_command_gives_a_one_line_error(capsys):
    assert main(["check", "agentgym/Hoter-v0"]) == 2
    assert "Did you mean 'agentgym/Hotter-v0'" in capsys.readouterr().err


class Endless(Corridor):
    """Never ends."""

    def oracle(self):
        return None

    def act(self, action):
        return Outcome("On and on.")


@pytest.mark.parametrize(("seconds", "lengths"), [(1e-9, [12, 12, 12]), (0, [50, 50, 50, 50])])
def test_walks_are_short_where_three_long_ones_would_take_too_long(registered, seconds, lengths):
    """As many checks play them again."""
    effort = CheckSettings(steps=200, budget=seconds)
    harness = Harness(registered(Endless, turns=100), {}, effort)
    assert [len(walk.actions) for walk in harness.recorded()] == lengths
