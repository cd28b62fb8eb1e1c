"""The checker of worlds notices every way to break the contract, and says where to look."""

import re
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from defects import DEFECTS, Corridor, Drawers
from gymnasium.utils.env_checker import check_env

from agentgym.cli import main
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.testing import CheckSettings, check_environment
from agentgym.testing.findings import Verdict
from agentgym.testing.worlds import CHECKS, findings

QUICK = CheckSettings(steps=60, resets=200, seconds=60.0)
"""Enough for small worlds; the seconds are for a busy machine."""

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


@pytest.mark.parametrize("correct", [Corridor, Drawers])
def test_a_correct_world_passes_every_check(registered, correct):
    found = list(findings(registered(correct), QUICK))
    assert [finding.note for finding in found if finding.verdict is Verdict.FAILED] == []
    assert len(found) == len(CHECKS)
    skipped = {finding.check for finding in found if finding.verdict is Verdict.SKIPPED}
    assert "another process agrees" not in skipped
    if correct is Drawers:
        assert skipped == {"seeds change episodes"}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.world.__name__)
def test_a_world_with_one_defect_is_caught_and_the_cause_named(registered, defect):
    with pytest.raises(AssertionError, match=defect.sentence) as problem:
        check_environment(registered(defect.world), QUICK)
    assert defect.world.__name__ in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_limit_that_is_not_the_registered_one_is_caught(registered):
    class Impatient(gymnasium.Wrapper):
        """Counts turns by itself, above the world, where the registered limit should."""

        def step(self, action):
            observation, reward, terminated, _, info = self.env.step(action)
            return observation, reward, terminated, True, info

    def impatient(**kwargs):
        return Impatient(Corridor(**kwargs))

    with pytest.raises(AssertionError, match="leave limits to Gymnasium"):
        check_environment(registered(impatient), QUICK)


def test_a_world_that_no_other_process_can_import_is_not_compared_there(registered):
    class Local(Corridor):
        pass

    found = {finding.check: finding for finding in findings(registered(Local), QUICK)}
    elsewhere = found["another process agrees"]
    assert elsewhere.verdict is Verdict.SKIPPED and "module:Class" in elsewhere.note


def test_checking_a_world_leaves_the_global_generator_as_it_was(registered):
    np.random.seed(5)
    check_environment(registered(Corridor), QUICK)
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand()


def test_the_documented_table_is_what_gymnasiums_checker_catches():
    """Every defect has its row, and the last column is measured, not remembered."""
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


def test_the_command_tells_what_passed_and_ends_with_status_zero(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    words = ["check", "hotter", "--env-args", "high", "60"]
    quick = ["--effort.steps", "40", "--effort.resets", "100"]
    assert main([*words, *quick]) == 0
    shown = capsys.readouterr().out
    assert f"check {len(CHECKS)}/{len(CHECKS)}" in " ".join(shown.split())
    for row in ("oracle wins", "another process agrees", "resets keep nothing"):
        assert re.search(rf"{row} +│ passed", shown), shown
    assert re.search("seeds change episodes +│ skipped", shown)
    assert "agentgym/Hotter-v0 keeps the contract" in shown


def test_the_command_names_the_violations_and_ends_with_status_one(registered, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    from defects.state import SharesStateWithItsFork

    quick = ["--effort.steps", "40", "--effort.resets", "100"]
    assert main(["check", registered(SharesStateWithItsFork), *quick]) == 1
    shown = capsys.readouterr().out
    assert re.search("forks go their own way +│ failed", shown)
    assert "share no mutable state" in shown and "1 violation" in shown


def test_a_slow_world_is_looked_at_for_as_few_episodes_as_are_asked(registered):
    hasty = CheckSettings(steps=8, resets=10, seconds=1e-9, episodes=2)
    notes = {finding.check: finding.note for finding in findings(registered(Corridor), hasty)}
    assert re.search("of 2 episodes won", notes["random agents lose"])
    assert notes["repeating agents lose"].endswith("in 2 tasks")
    with pytest.raises(ConfigError, match=r"effort\.episodes is 1, expected at least 2"):
        check_environment("agentgym/Hotter-v0", CheckSettings(episodes=1))


def test_a_mistake_in_the_command_is_one_line(capsys):
    assert main(["check", "agentgym/Hoter-v0"]) == 2
    assert "Did you mean 'agentgym/Hotter-v0'" in capsys.readouterr().err
