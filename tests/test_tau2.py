"""tau2-bench: oracle, forks that share records, the scripted customer, bad calls."""

import json
import time

import pytest

from agentgym.errors import ConfigError, UnknownTask

pytest.importorskip("tau2")
pytest.importorskip("addict")
pytest.importorskip("loguru")
pytest.importorskip("toml")

from agentgym.tools.speakers import Reply
from agentgym.tools.user import END, SimulatedUser
from agentgym_envs.tau2 import package, records
from agentgym_envs.tau2.domains import DOMAINS, domain
from agentgym_envs.tau2.env import Tau2


@pytest.fixture(scope="module", params=DOMAINS)
def env(request):
    return Tau2(domain=request.param)


def begin(env, task):
    return env.reset(seed=0, options={"task": task})


def test_the_published_actions_win_and_leave_the_shared_data_alone(env):
    before = env.domain._template.get_db_hash()
    for task in env.tasks("base")[::5]:
        begin(env, task)
        steps = [env.step(action) for action in env.oracle()]
        assert steps[-1][1] == 1.0 and steps[-1][4]["won"] and not any(s[1] for s in steps[:-1])
    assert env.domain._template.get_db_hash() == before


def test_published_splits(env):
    sizes = {"telecom": (74, 20, 40, 114), "retail": (60, 14, 40, 114), "airline": (24, 6, 20, 50)}
    parts = [env.tasks(split) for split in ("train", "valid", "test", "base")]
    assert tuple(map(len, parts)) == sizes[env.domain.name]
    assert not set(parts[0]) & set(parts[2]) and not set(parts[1]) & set(parts[2])
    assert set(parts[3]) >= set(parts[0]) | set(parts[2])


def test_a_case_that_is_closed_at_once_is_lost_unless_nothing_was_to_be_done(env):
    """In some cases the policy forbids what the customer asks for."""
    won = 0
    for task in env.tasks("test"):
        begin(env, task)
        won += env.step(env.written("done", {}))[4]["won"]
    assert won == {"telecom": 0, "retail": 2, "airline": 6}[env.domain.name]


def test_a_fork_goes_on_by_itself(env):
    for task in env.tasks("test")[:6]:
        begin(env, task)
        plan = env.oracle()
        for action in plan[: len(plan) // 2]:
            env.step(action)
        fork, before = env.fork(), [str(part) for part in data(env)]
        for action in plan[len(plan) // 2 :]:
            fork.step(action)
        assert fork._last.won and [str(part) for part in data(env)] == before
        for action in plan[len(plan) // 2 :]:
            env.step(action)
        assert env._last.won and data(env) == data(fork)


def data(env):
    """What changes in an episode: records that are no longer shared, and the device."""
    state = env._state
    if env.domain.solo:
        return [state.tools.db, state.user_tools.db]
    tables = records._tables(state.tools.db).values()
    return [{key: dict.__getitem__(table, key) for key in sorted(table.own)} for table in tables]


def test_databases_are_compared_as_their_hashes():
    where = domain("retail")
    one, other = (where.begin(where.ids("test")[0]) for _ in range(2))
    user = next(iter(one.tools.db.users))
    assert records.equal(one.tools.db, other.tools.db)
    assert one.tools.db.users[user] is not dict.__getitem__(other.tools.db.users, user)
    assert records.equal(one.tools.db, other.tools.db), "a copy is equal"
    one.tools.db.users[user].address.zip = "changed"
    assert not records.equal(one.tools.db, other.tools.db)
    assert other.tools.db.users[user].address.zip != "changed"
    assert (one.get_db_hash() == other.get_db_hash()) is False
    del one.tools.db.users[user]
    assert not records.equal(one.tools.db, other.tools.db)


def test_the_scripted_customer_says_all_at_once_and_then_agrees():
    env = Tau2(domain="retail")
    text, info = begin(env, "retail-5")
    assert "mei_kovacs_8020" in text and "exchange the water bottle" in text
    assert "done" in {tool["function"]["name"] for tool in info["tools"]}
    answer, reward, over, _, after = env.step("Shall I exchange the lamp?")
    assert answer.startswith("Yes") and (reward, over, after["action_valid"]) == (0.0, False, True)
    alone = Tau2()
    begin(alone, alone.tasks("test")[0])
    assert not alone.step("Hello?")[4]["action_valid"]


def test_a_simulated_customer_hears_the_agent_and_ends_the_episode():
    """Facts that the agent gives it count; its brief is that of the package."""

    def speaker(messages, seed):
        brief, heard = messages[0]["content"], messages[-1]["content"]
        assert "You want this:" in brief
        return Reply("Thank you." + END if "Goodbye" in heard else f"Help me. ({len(messages)})")

    with pytest.raises(ConfigError, match="solved alone"):
        Tau2(user=SimulatedUser(speaker))
    env = Tau2(domain="retail", user=SimulatedUser(speaker))
    task = next(
        t for t in env.tasks("base") if env.domain.task(t[7:]).evaluation_criteria.communicate_info
    )
    assert begin(env, task)[0] == "Help me. (2)"
    *calls, said, _ = env.oracle()
    for action in calls:
        env.step(action)
    fork = env.fork()
    assert env.step(said)[0] == "Help me. (4)" and fork.user.turns == 1
    text, reward, over, _, info = env.step("Goodbye.")
    assert (text, reward, over, info["won"]) == ("Thank you.", 1.0, True, True)
    assert fork.step("Goodbye.")[1:3] == (0.0, True), "the facts were not communicated"


def test_what_the_customer_must_be_told_counts():
    env = Tau2(domain="retail")
    for task in env.tasks("base"):
        begin(env, task)
        if env._task.evaluation_criteria.communicate_info:
            break
    *calls, said, done = env.oracle()
    for action in (*calls, done):
        env.step(action)
    assert not env._last.won and said in ", ".join(env._task.evaluation_criteria.communicate_info)


BAD = [
    ("get_customer_by_phone", {"phone_number": 3}, "Error"),
    ("get_customer_by_phone", {}, "Error"),
    ("get_customer_by_phone", {"phone_number": "1", "more": []}, "Error"),
    ("get_customer_by_id", {"customer_id": "nobody"}, "not found"),
    ("set_network_mode_preference", {"mode": {"a": 1}}, ""),
    ("format_disk", {}, "There is no tool"),
    ("get_customer_by_id", {"customer_id": "x" * 1_000_000}, "characters, expected at most"),
    ("refuel_data", {"customer_id": "C1001", "line_id": "L1002", "gb_amount": 10**400}, "range"),
]


@pytest.mark.parametrize(("name", "arguments", "answer"), BAD)
def test_bad_calls_are_answered_in_short(name, arguments, answer):
    env = Tau2()
    begin(env, env.tasks("test")[0])
    start = time.monotonic()
    call = json.dumps({"name": name, "arguments": arguments})
    text, reward, over, _, info = env.step(f"<tool_call>{call}</tool_call>")
    assert answer in text and (reward, over) == (0.0, False) and len(text) < 2000
    assert not (info["action_valid"] and answer) and text.count("\n") == 2
    assert time.monotonic() - start < 2


def test_bad_arguments_and_tasks_are_named():
    with pytest.raises(ConfigError, match=r"domain: got 'telcom'.* Did you mean 'telecom'"):
        Tau2(domain="telcom")
    for task in ("retail-0", "telecom", "telecom-nothing", ""):
        with pytest.raises(UnknownTask):
            Tau2().reset(options={"task": task})


def test_the_package_reads_no_settings_file(tmp_path, monkeypatch):
    import os
    import sys

    (tmp_path / ".env").write_text("AGENTGYM_TEST_SETTING=1\n")
    monkeypatch.chdir(tmp_path)
    package.module("utils.utils")
    assert "AGENTGYM_TEST_SETTING" not in os.environ
    assert getattr(sys.modules.get("dotenv"), "__file__", "real") != ""
