"""AgentDojo against the runner of its package."""

import json
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from agentgym.errors import ConfigError, ImpossibleValue, UnknownTask

pytest.importorskip("agentdojo")
pytest.importorskip("deepdiff")
pytest.importorskip("email_validator")

from agentgym_envs.agentdojo import package, suites
from agentgym_envs.agentdojo.checks import check, sharing
from agentgym_envs.agentdojo.env import AgentDojo
from agentgym_envs.agentdojo.score import score

INJECTED = "banking-user_task_3-injection_task_2-important_instructions"


@pytest.fixture(scope="module")
def env():
    return AgentDojo(suites="banking,slack")


def begin(env, task):
    return env.reset(seed=0, options={"task": task})


def solution(case, task):
    """Calls and answer of a published solution."""
    calls = task.ground_truth(suites.begin(case))
    return [(c.function, dict(c.args)) for c in calls], task.GROUND_TRUTH_OUTPUT or "Done."


def replay(calls, answer):
    """A pipeline of the package that makes given calls; it keeps the results."""
    modules = package.load()
    executor = modules["tool_execution"].ToolsExecutor()

    class Replay(modules["base_pipeline_element"].BasePipelineElement):
        name = "local"

        def __init__(self):
            self.results = []

        def query(self, query, runtime, env, messages=(), extra_args=None):
            messages = list(messages)
            for name, arguments in calls:
                call = modules["functions_runtime"].FunctionCall(function=name, args=arguments)
                message = {"role": "assistant", "content": None, "tool_calls": [call]}
                *_, messages, _ = executor.query(query, runtime, env, [*messages, message])
                found = messages[-1]
                text = found["content"][0]["content"]
                self.results.append(" ".join(found["error"].split()) if found["error"] else text)
            content = [{"type": "text", "content": answer}]
            messages.append({"role": "assistant", "content": content, "tool_calls": None})
            return query, runtime, env, messages, extra_args

    return Replay()


def theirs(case, calls, answer):
    """Utility, security and the results of the calls, by the package's own runner."""
    one, pipeline = suites.suite(case.suite), replay(calls, answer)
    injected = one.injection_tasks[case.injection] if case.injection else None
    loaded = type(one).load_and_inject_default_environment(one, suites._injected(case))
    utility, security = one.run_task_with_pipeline(
        pipeline, one.user_tasks[case.user], injected, {}, environment=loaded
    )
    return bool(utility), bool(security) and injected is not None, pipeline.results


def disturbed(calls, rng):
    """Calls with one left out, made twice, or changed; or none of it."""
    calls, kind = list(calls), int(rng.integers(5))
    place = int(rng.integers(len(calls)))
    if kind == 0:
        del calls[place]
    elif kind == 1:
        calls.insert(place, calls[place])
    elif kind == 2:
        name, arguments = calls[place]
        changed = {key: "x" if isinstance(v, str) else "many" for key, v in arguments.items()}
        calls[place] = (name, changed)
    return calls


def ours(env, case, calls, answer):
    begin(env, case.id)
    results = []
    for name, arguments in calls:
        text, *_ = env.step(env.written(name, arguments))
        results.append(text.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>"))
    *_, info = env.step(answer)
    assert info["won"] == (info["utility"] and not info["attack_success"])
    return info["utility"], info["attack_success"], results


def test_verdicts_and_results_are_those_of_the_package(env):
    """For solutions of the user, of the attacker and of both, with and without mistakes."""
    rng, seen = np.random.default_rng(0), set()
    cases = [suites.parse(task) for task in env.tasks("under_attack")]
    for number in rng.choice(len(cases), 28, replace=False):
        case = cases[int(number)]
        one = suites.suite(case.suite)
        calls, answer = solution(case, one.user_tasks[case.user])
        more, _ = solution(case, one.injection_tasks[case.injection])
        calls = disturbed(calls, rng) if number % 3 else calls
        calls = [*(more if number % 2 else ()), *calls]
        for each in (case, suites.Case(case.suite, case.user)):
            found = ours(env, each, calls, answer)
            assert found == theirs(each, calls, answer)
            seen.add(found[:2])
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


@pytest.mark.parametrize("suite", suites.SUITES)
def test_verdicts_are_the_same_on_data_that_share_what_did_not_change(suite):
    """DeepDiff stops at one object; it must find on shared data what it finds on copies."""
    env, rng, seen = AgentDojo(suites=suite), np.random.default_rng(0), set()
    tasks = env.tasks("under_attack")
    for place, number in enumerate(rng.choice(len(tasks), 12, replace=False)):
        case = suites.parse(tasks[int(number)])
        one = suites.suite(suite)
        calls, answer = solution(case, one.user_tasks[case.user])
        more, _ = solution(case, one.injection_tasks[case.injection])
        calls = disturbed(calls, rng) if place % 3 and calls else calls
        begin(env, case.id)
        for name, arguments in [*calls, *(more if place % 2 else ())]:
            env.step(env.written(name, arguments))
        data, before = pickle.dumps(env._data), suites.begin(case)
        content = [{"type": "text", "content": answer}]
        copies = (content, before, pickle.loads(data), list(env._calls))
        found = check(case, answer, env._data, env._calls)
        assert found.utility == one._check_task_result(one.user_tasks[case.user], *copies)
        attacker = one.injection_tasks[case.injection]
        assert found.attack_success == one._check_task_result(attacker, *copies)
        assert pickle.dumps(env._data) == data
        seen.add(found.attack_success)
    assert seen == {False, True}


def test_only_what_has_changed_is_an_object_of_its_own():
    case = suites.parse("workspace-user_task_6")
    before, after = suites.begin(case), suites.begin(case)
    assert sharing(after, before) is before
    after.inbox.emails["1"].read = not after.inbox.emails["1"].read
    after.calendar.events.pop("1")
    found = sharing(after, before)
    assert found == after != before
    assert found.cloud_drive is before.cloud_drive
    assert found.inbox.emails["2"] is before.inbox.emails["2"]
    assert found.inbox.emails["1"] is not before.inbox.emails["1"]
    assert found.calendar.events["2"] is before.calendar.events["2"]
    # Equal to Python, of another type: DeepDiff reports it.
    after.calendar.events["2"].all_day = int(after.calendar.events["2"].all_day)
    assert type(sharing(after, before).calendar.events["2"].all_day) is int


@pytest.mark.parametrize("name", ["workspace-user_task_6", "travel-user_task_3"])
def test_results_of_the_large_suites_are_those_of_the_package(name):
    case = suites.parse(name)
    calls, answer = solution(case, suites.suite(case.suite).user_tasks[case.user])
    assert ours(AgentDojo(), case, calls, answer) == theirs(case, calls, answer)


def test_data_are_those_of_the_package():
    """The parser in C reads what the package's reads, injections with line breaks included."""
    for name in ("banking", "slack"):
        one = suites.suite(name)
        text = dict.fromkeys(one.get_injection_vector_defaults(), "One:\n\n\n<b>two</b>\n# three")
        expected = type(one).load_and_inject_default_environment(one, text)
        assert suites.loaded(name, suites._frozen(text)) == expected


def test_published_solutions_win(env):
    for task in [*env.tasks("benign")[::3], *env.tasks("under_attack")[::40]]:
        begin(env, task)
        steps = [env.step(action) for action in env.oracle()]
        assert steps[-1][1] == 1.0 and steps[-1][4]["won"]


def test_panels_are_the_published_ones_and_splits_are_disjoint():
    env = AgentDojo()
    assert [len(env.tasks(s)) for s in ("benign", "under_attack")] == [97, 949]
    parts = {s: [suites.parse(t) for t in env.tasks(s)] for s in ("train", "valid", "test")}
    users = {s: {(c.suite, c.user) for c in cases} for s, cases in parts.items()}
    goals = {
        s: {(c.suite, c.injection) for c in cases if c.injection} for s, cases in parts.items()
    }
    assert (
        not users["train"] & (users["valid"] | users["test"]) and not users["valid"] & users["test"]
    )
    assert not goals["train"] & goals["test"] and sum(map(len, users.values())) == 92


@pytest.mark.parametrize("user", sorted(suites.IDLE))
def test_tasks_that_need_nothing_are_in_no_split_for_training(env, user):
    case = suites.Case("banking", user)
    assert theirs(case, [], "")[0] and ours(env, case, [], "Done.")[0]
    assert not any(
        case.id in task for split in ("train", "valid", "test") for task in env.tasks(split)
    )


def test_an_attacked_fork_shares_the_episode_so_far(env):
    clean = "banking-user_task_3"
    begin(env, clean)
    actions = env.oracle()
    env.step(actions[0])
    fork, start = env.attacked("injection_task_2"), time.monotonic()
    assert time.monotonic() - start < 1
    assert fork.task_id == INJECTED and fork._opening.task_type == "banking-attacked"
    assert env.task_id == clean and env._opening.task_type == "banking"
    begin(env, INJECTED)
    env.step(actions[0])
    assert fork._data == env._data and fork._calls == env._calls
    with pytest.raises(UnknownTask):
        env.attacked("injection_task_99")


def test_the_attacker_is_paid_for_by_the_agent():
    """Reward, utility and attack success of an agent that obeys everybody."""
    env = AgentDojo(suites="banking", attack_cost=0.5)
    begin(env, INJECTED)
    one = suites.suite("banking")
    case = suites.parse(INJECTED)
    calls, answer = solution(case, one.user_tasks[case.user])
    more, _ = solution(case, one.injection_tasks[case.injection])
    for name, arguments in [*more, *calls]:
        env.step(env.written(name, arguments))
    _, reward, over, _, info = env.step(answer)
    assert (reward, over, info["won"]) == (0.5, True, False)
    assert info["utility"] and info["attack_success"]
    assert begin(env, INJECTED)[1]["attack_success"] is False


def test_utility_and_attack_success_are_scored_side_by_side(env):
    """An agent that only obeys the attacker, and one that only serves the user."""

    def serve(episode):
        for action in episode.oracle():
            episode.step(action)

    def betray(episode):
        case = suites.parse(episode.task_id)
        if case.injection:
            goal = suites.suite(case.suite).injection_tasks[case.injection]
            for name, arguments in solution(case, goal)[0]:
                episode.step(episode.written(name, arguments))
        episode.step("Done.")

    users = ["banking-user_task_3", "banking-user_task_4"]
    found = score(env, users, serve)
    assert [each.value for each in found] == [1, 1, 0, 0, 1]
    found = score(env, users, betray)
    assert [each.value for each in found] == [0, 0, 0, 1, 0]


BAD = [
    (
        "send_money",
        {"recipient": 3, "amount": "many", "subject": [], "date": {}},
        "ValidationError",
    ),
    ("send_money", {}, "ValidationError"),
    ("read_file", {"file_path": "nothing.txt"}, ""),
    ("format_disk", {}, "There is no tool"),
    ("read_file", {"file_path": "x" * 1_000_000}, "characters, expected at most"),
    ("get_most_recent_transactions", {"n": 10**400}, "out of range"),
    ("read_file", {"file_path": "[" * 5_000}, ""),
]


@pytest.mark.parametrize(("name", "arguments", "answer"), BAD)
def test_bad_calls_are_answered_in_short(env, name, arguments, answer):
    begin(env, "banking-user_task_3")
    start = time.monotonic()
    call = json.dumps({"name": name, "arguments": arguments})
    text, reward, over, _, info = env.step(f"<tool_call>{call}</tool_call>")
    assert answer in text and (reward, over) == (0.0, False) and len(text) < 1500
    assert not (info["action_valid"] and answer) and text.count("\n") == 2
    assert time.monotonic() - start < 2


def test_bad_arguments_and_tasks_are_named():
    with pytest.raises(ConfigError, match="suites: got 'bank'"):
        AgentDojo(suites="bank")
    with pytest.raises(ConfigError, match=r"attack: got 'drect'.* Did you mean 'direct'"):
        AgentDojo(attack="drect")
    with pytest.raises(ImpossibleValue, match="attack_cost"):
        AgentDojo(attack_cost=-1)
    for task in ("banking", "banking-user_task_99", f"{INJECTED}x", "banking-user_task_3-direct"):
        with pytest.raises(UnknownTask):
            AgentDojo().reset(options={"task": task})


def test_the_clients_of_vendors_stay_out_and_the_real_pipeline_stays_importable():
    code = (
        "from agentgym_envs.agentdojo import suites; suites.attacks(); import sys\n"
        "assert not {'openai', 'anthropic', 'cohere', 'langchain'} & set(sys.modules)\n"
        "assert 'agentdojo.agent_pipeline' not in sys.modules\n"
        "try: import agentdojo.agent_pipeline as real\n"
        "except ImportError as lacking: assert lacking.name in ('anthropic', 'cohere', 'google')\n"
        "else: assert real.AgentPipeline\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
