"""BFCL against the checker and the runner of `bfcl-eval`."""

import json
import time

import numpy as np
import pytest

from agentgym.errors import ConfigError, UnknownTask

pytest.importorskip("bfcl_eval")
pytest.importorskip("mpmath")
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

from agentgym.tools import HermesCalls
from agentgym_envs.bfcl import data
from agentgym_envs.bfcl.env import BFCL, STEPS


@pytest.fixture
def env():
    return BFCL()


def called(action):
    return [(call.name, call.arguments) for call in HermesCalls().parse(action, ())]


def begin(env, task):
    return env.reset(seed=0, options={"task": task})


def solution(env, task):
    """Actions of each turn of the conversation."""
    begin(env, task)
    turns = [[]]
    for action in env.oracle():
        turns[-1].append(action)
        if not called(action):
            turns.append([])
    return turns[:-1]


def test_the_published_solutions_win(env):
    for task in env.tasks("multi_turn")[::5]:
        begin(env, task)
        steps = [env.step(action) for action in env.oracle()]
        assert steps[-1][4]["won"] and steps[-1][1] == 1.0
        assert [step[1] for step in steps[:-1]] == [0.0] * (len(steps) - 1)


def disturbed(turns, rng):
    """A solution with a call left out, repeated, changed or added somewhere."""
    turns = [list(turn) for turn in turns]
    turn = turns[rng.integers(len(turns))]
    place, kind = int(rng.integers(len(turn))), int(rng.integers(4))
    if kind == 0 and len(turn) > 1:
        del turn[int(rng.integers(len(turn) - 1))]
    elif kind == 1:
        turn.insert(
            0, turn[0] if called(turn[0]) else '<tool_call>{"name": "pwd", "arguments": {}}'
        )
    elif kind == 2 and called(turn[place]):
        (name, arguments), *_ = called(turn[place])
        for key, value in arguments.items():
            arguments[key] = f"{value}x" if isinstance(value, str) else 7
        turn[place] = BFCL().written(name, arguments)
    elif kind == 3:
        extra = ("ls", {}), ("cd", {"folder": ".."}), ("fillFuelTank", {"fuelAmount": "many"})
        turn.insert(place, BFCL().written(*extra[int(rng.integers(3))]))
    return turns


def test_disturbed_solutions_are_judged_as_by_the_published_checker(env):
    """Calls, answers and verdict are those of the runner, for solutions and near misses."""
    rng, verdicts, compared = np.random.default_rng(0), [], 0
    for number, task in enumerate(rng.choice(env.tasks("multi_turn"), 48, replace=False)):
        turns = disturbed(solution(env, str(task)), rng)
        begin(env, str(task))
        row, ours, over = env._task, [], False
        answers = []
        for turn in turns:
            ours.append([])
            for action in turn:
                if not over:
                    text, _, over, _, info = env.step(action)
                offered = [
                    f"{name}(**{dict(arguments)!r})"
                    for name, arguments in called(action)
                    if any(each.name == name for each in env._functions(row, 200))
                ]
                if offered:
                    ours[-1].append(offered)
                answers += [text] if offered and not over else []
        verdict = multi_turn_checker(
            ours,
            [
                [f"{c.name}(*{c.positional!r}, **{dict(c.named)!r})" for c in t]
                for t in row.solution
            ],
            {"id": row.id, "initial_config": row.config, "involved_classes": list(row.classes)},
            row.id.rpartition("_")[0],
            f"model{number}",
        )
        assert verdict["valid"] == info["won"], (task, verdict)
        verdicts.append(verdict["valid"])
        compared += same_answers(env, verdict)
    assert 8 < sum(verdicts) < 40 and compared > 20


def same_answers(env, verdict):
    """What the runner's calls answered is what ours did, as far as both made them; how many."""
    found = verdict.get("execution_result", [])
    theirs = [text for turn in found for step in turn["model"] for text in step]
    assert list(env._answers)[: len(theirs)] == theirs[: len(env._answers)]
    return min(len(theirs), len(env._answers))


def test_a_missing_function_is_added_by_the_user(env):
    _, info = begin(env, "multi_turn_miss_func_0")
    assert "sort" not in {tool["function"]["name"] for tool in info["tools"]}
    assert '"sort"' not in info["goal"]
    for turn in solution(env, "multi_turn_miss_func_0")[:3]:
        texts = [env.step(action)[0] for action in turn]
    assert texts[-1].startswith('{"type": "function", "function": {"name": "sort"')
    assert texts[-1].endswith("What about now?")
    assert "sort" in {tool["function"]["name"] for tool in env.schemas()}


def test_rewards_of_turns_add_up_to_one():
    env = BFCL(reward="turns")
    begin(env, "multi_turn_base_3")
    paid = [env.step(action)[1] for action in env.oracle()]
    assert sum(paid) == pytest.approx(1) and sum(map(bool, paid)) == 2
    begin(env, "multi_turn_base_3")
    assert env.step("I cannot.")[1:3] == (0.0, True)


def test_a_turn_needs_a_call_though_its_answers_are_known(env):
    """The third turn asks for what was shown in the second."""
    turns = solution(env, "multi_turn_base_1")
    begin(env, "multi_turn_base_1")
    for action in (*turns[0], *turns[1], *turns[2][:-1], turns[3][0], turns[2][-1]):
        _, _, over, _, info = env.step(action)
    assert (over, info["score"]) == (False, 0.75)
    assert env.step("Done.")[2] and not env._last.won


def test_a_turn_has_a_limit_on_actions(env):
    begin(env, "multi_turn_base_0")
    ended = [env.step(env.written("pwd", {}))[2] for _ in range(STEPS + 1)]
    assert ended == [False] * STEPS + [True]


def test_a_fork_goes_on_by_itself(env):
    turns = solution(env, "multi_turn_base_0")
    for action in turns[0]:
        env.step(action)
    fork = env.fork()
    fork.step(env.written("touch", {"file_name": "x"}))
    assert "x" in fork.step(env.written("ls", {}))[0]
    assert env.oracle() and fork.oracle() is None
    assert [env.step(action)[4]["won"] for turn in turns[1:] for action in turn][-1]


BAD = [
    ("cd", {"folder": 3}, "Error during execution"),
    ("cd", {}, "Error during execution"),
    ("cd", {"folder": "document", "more": [1]}, "Error during execution"),
    ("cat", {"file_name": "nothing.txt"}, "No such file"),
    ("post_tweet", {"content": {"a": ["b"]}}, ""),
    ("format_disk", {}, "There is no tool"),
    ("_load_scenario", {}, "There is no tool"),
    ("touch", {"file_name": "x" * 1_000_000}, "characters, expected at most"),
    ("cd", {"folder": 10**400}, "out of range"),
]


@pytest.mark.parametrize(("name", "arguments", "answer"), BAD)
def test_bad_calls_are_answered_in_short(env, name, arguments, answer):
    begin(env, "multi_turn_base_0")
    start = time.monotonic()
    text, reward, over, _, info = env.step(
        f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"
    )
    assert answer in text and (reward, over) == (0.0, False) and len(text) < 1500
    assert not info["action_valid"] or name == "post_tweet"
    assert time.monotonic() - start < 2


def test_arithmetic_ends(env):
    begin(env, "multi_turn_miss_func_49")
    start = time.monotonic()
    for name, arguments in (
        ("power", {"base": 10**14, "exponent": 10**14}),
        ("square_root", {"number": 2, "precision": 10**14}),
        ("logarithm", {"value": 2, "base": 3, "precision": 10**14}),
    ):
        assert "must be at most 1000" in env.step(env.written(name, arguments))[0]
    assert time.monotonic() - start < 1


def test_splits_share_no_scenario(env):
    numbers = [
        {task.rpartition("_")[2] for task in env.tasks(s)} for s in ("train", "valid", "test")
    ]
    assert not numbers[0] & numbers[1] | numbers[0] & numbers[2] | numbers[1] & numbers[2]
    assert len(env.tasks("multi_turn")) == 800 == sum(map(len, map(data.load, data.CATEGORIES)))


def test_bad_arguments_and_tasks_are_named():
    with pytest.raises(ConfigError, match=r"categories: got 'bas'.* Did you mean 'base'"):
        BFCL(categories="bas")
    with pytest.raises(ConfigError, match="categories is empty"):
        BFCL(categories=" ,")
    with pytest.raises(UnknownTask, match="multi_turn_base_200"):
        BFCL().reset(options={"task": "multi_turn_base_200"})
