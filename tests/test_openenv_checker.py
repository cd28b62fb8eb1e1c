"""The checker over the wire: faults of servers, and defects of the environments they serve.

All 91 seeded defects are served and checked in ``tests/interop/test_openenv.py``; here is a choice.
"""

import json
import re
import sys

import pytest

pytest.importorskip("websockets")
from defects import DEFECTS
from openenv_servers import ROOT, free_port, process

from agentgym.cli import main
from agentgym.testing import CheckSettings, remote, severity, wire, wire_sessions
from agentgym.testing.environments import SERVER_CHECKS, checks_of, findings, title
from agentgym.testing.findings import Finding, Skipped, Verdict
from agentgym.testing.harness import Harness

QUICK = CheckSettings(steps=40, resets=100, seconds=20.0)


@pytest.fixture(scope="module")
def servers():
    port = free_port()
    with process(
        [sys.executable, str(ROOT / "tests/defect_server.py"), str(port), "servers"], port
    ) as url:
        yield f"openenv:{url}"


def run(check, name):
    harness = Harness(name, {}, QUICK)
    try:
        return check(harness)
    finally:
        harness.abandon()


FAULTS = [
    (
        wire.state_follows_the_episode,
        "NamesAnotherEpisode",
        "episode_id 'another', reset was given",
    ),
    (wire.state_follows_the_episode, "CountsNoSteps", "step_count 0 after 1 steps"),
    (wire.observations_match_their_schema, "BreaksItsSchema", "'hint' was unexpected"),
    (wire.rewards_are_numbers, "LeavesOutRewards", "must be a finite number, got None"),
    (
        wire_sessions.nothing_is_paid_outside_an_episode,
        "PaysAfterTheEnd",
        "pay nothing and stay done",
    ),
    (
        wire_sessions.broken_messages_are_refused,
        "AcceptsAnything",
        "was accepted, it must be refused",
    ),
    (wire.the_oracle_is_not_shown, "ShowsTheOracle", "the metadata of reset holds the oracle's"),
    (wire.tasks_are_as_declared, "ListsAnew", "is another than in the list"),
    (
        wire_sessions.ended_sessions_make_room,
        "KeepsSessions",
        "free a session when its connection ends",
    ),
    (remote.canaries_stay_at_the_floor, "PaysForClaims", "not for words about it"),
    (remote.returns_tell_agents_apart, "PaysForNothing", "doing nothing earns"),
    (remote.solutions_are_paid_alike, "PaysByChance", "a verdict may depend on"),
]


@pytest.mark.parametrize(("check", "server", "sentence"), FAULTS, ids=[f[1] for f in FAULTS])
def test_a_fault_of_a_server_is_found_and_a_right_one_passes(servers, check, server, sentence):
    with pytest.raises(AssertionError, match=re.escape(sentence)):
        run(check, f"{servers}/{server}")
    assert run(check, f"{servers}/Drawers")


def test_what_needs_more_than_the_wire_is_skipped(servers):
    with pytest.raises(Skipped, match="--env-args replica URL"):
        run(remote.another_server_agrees, f"{servers}/Drawers")


def test_a_right_world_passes_every_check_over_the_wire(servers, capsys, tmp_path):
    name, report = f"{servers}/Drawers", tmp_path / "report.json"
    quick = ["--effort.steps", "30", "--effort.resets", "60", "--effort.seconds", "5"]
    assert main(["check", name, *quick, "--report", str(report)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"severity-v1: \d+ of 45 names passed, none failed, skipped: ", shown)
    reported = json.loads(report.read_text())
    assert [each["check"] for each in reported["findings"]] == [title(c) for c in SERVER_CHECKS]
    assert reported["severity-v1"]["semantic.oracle_max"] == "passed"
    assert reported["severity-v1"]["hub.cross_host_determinism"] == "skipped"


CHOSEN = "UsesUpItsTasks HasAnOracleThatActs RaisesOnNul DrawsFromRandom HandsOutItsState"


def test_every_name_of_the_policy_is_looked_at_by_checks_that_exist():
    titles = {title(check) for check in SERVER_CHECKS}
    assert len(severity.NAMES) == 45 and len(severity.COVERED) >= 25
    assert {*severity.COVERED} <= {*severity.NAMES}
    for checks in severity.COVERED.values():
        assert {*checks} <= titles
    assert checks_of("openenv:http://h") is SERVER_CHECKS


def test_a_name_of_the_policy_fails_with_any_of_its_checks():
    def found(**verdicts):
        return [Finding(k.replace("_", " "), v, "", 0.0) for k, v in verdicts.items()]

    both = severity.COVERED["semantic.floor_gap"]
    assert both == ("returns tell agents apart", "idle agents lose")
    P, F, S = Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED
    for first, second, expected in ((P, P, P), (P, F, F), (S, P, P), (S, S, S), (F, S, F)):
        given = found(returns_tell_agents_apart=first, idle_agents_lose=second)
        assert severity.verdicts(given)["semantic.floor_gap"] is expected


@pytest.fixture(scope="module")
def defects():
    port = free_port()
    with process(
        [sys.executable, str(ROOT / "tests/defect_server.py"), str(port), "worlds"], port
    ) as url:
        yield f"openenv:{url}"


@pytest.mark.parametrize("name", CHOSEN.split())
def test_a_defect_is_found_over_the_wire(defects, name):
    defect = next(each for each in DEFECTS if each.world.__name__ == name)
    failed = (f for f in findings(f"{defects}/{name}", QUICK) if f.verdict is Verdict.FAILED)
    assert re.search(defect.sentence, next(failed).note)


def test_a_leak_is_found_without_time(defects):
    """Resets are counted, not timed: a busy machine missed it."""
    least = CheckSettings(steps=40, resets=250, budget=1e-9)
    harness = Harness(f"{defects}/KeepsEveryEpisode", {}, least)
    with pytest.raises(AssertionError, match="Python's memory grew"):
        remote.resets_leak_no_memory_there(harness)
    harness.abandon()
