import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from agentgym.env.executor import fork_env
from agentgym.env.registry import world
from agentgym.errors import ConfigError, UnknownTask
from agentgym.sandbox import Sandbox
from agentgym.testing import CheckSettings, check_environment
from agentgym.tools import PythonTool
from agentgym_envs.pythonmath.answers import same
from agentgym_envs.pythonmath.files import open_problems
from agentgym_envs.pythonmath.problems import KINDS, NUMBERS, generate

BRISK = CheckSettings(steps=50, resets=60, seconds=0.3)
"""Every check of the contract, each for a short while."""
DATA = os.environ.get("AGENTGYM_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="AGENTGYM_DATA is not set")


def make(**kwargs):
    return world("agentgym/PythonMath-v0", **kwargs)


def begin(env, task):
    return env.reset(options={"task": task})


# ---- problems --------------------------------------------------------------------------------


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize("difficulty", range(1, 6))
@pytest.mark.parametrize("kind", KINDS)
def test_an_independent_program_finds_the_answer(kind, difficulty):
    sandbox = Sandbox()
    for number in (*range(8), 8000, 8999):
        problem = generate(kind, difficulty, number)
        assert problem == generate(kind, difficulty, number)
        result = sandbox.run(problem.program)
        found = (result.stdout or result.value).strip()
        assert same(found, problem.answer), (problem, result)


def test_difficulty_increases_length_and_answer_size():
    def size(difficulty):
        made = [generate(kind, difficulty, n) for kind in KINDS for n in range(40)]
        return sum(len(p.question) for p in made), sum(len(p.answer) for p in made)

    sizes = [size(difficulty) for difficulty in range(1, 6)]
    assert sizes == sorted(sizes)


def test_splits_share_no_question():
    """The range of numbers is smallest at difficulty 1, where questions repeat within a split."""
    for kind in KINDS:
        questions = {
            split: {generate(kind, 1, n).question for n in NUMBERS[split][:400]}
            for split in NUMBERS
        }
        assert not questions["train"] & questions["test"]
        assert not questions["valid"] & (questions["train"] | questions["test"])
        assert all(len(found) > 370 for found in questions.values()), kind


# ---- files -----------------------------------------------------------------------------------


def test_common_row_formats_are_read(tmp_path):
    rows = [
        {"question": "How many?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7", "idx": 0},
        {"problem": "Sum?", "solution": "long", "answer": 70, "id": "0"},
        {"problem": "Ratio?", "answer": r"\frac{1}{2}", "subject": "Algebra", "level": 2},
    ]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    env = make(data=str(path), data_split="test")
    tasks = env.tasks("test")
    assert len(tasks) == 3 and not env.tasks("train") and not env.tasks("valid")
    for task, answer, kind in zip(
        tasks, ["7", "70", "0.5"], ["mixed", "mixed", "Algebra"], strict=True
    ):
        _, info = begin(env, task)
        assert info["task_type"] == kind
        assert env.step(f"<answer>{answer}</answer>")[4]["won"]
    with pytest.raises(UnknownTask):
        begin(env, "arithmetic-2-0")
    with pytest.raises(UnknownTask):
        begin(env, tasks[0].removesuffix("0") + "3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no problems"),
        ('{"question": "a", "answer": "1"}\n{', "line 2: not JSON"),
        ("[1]", "entry 1: got a JSON int, expected an object"),
        ('{"question": "a"}', "expected a question .* got the fields question"),
        ('{"question": "a", "answer": "#### "}', "holds no problems"),
        ('{"question": "a", "answer": true}', "expected a question"),
        ('{"question": " ", "answer": 1}', "expected a question"),
    ],
)
def test_unknown_file_formats_give_a_one_line_error(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        make(data=str(path))
    assert "\n" not in str(error.value)


@needs_data
@pytest.mark.parametrize(
    ("name", "count"), [("gsm8k", 1319), ("math500", 500), ("aime24", 30), ("aime25", 30)]
)
def test_published_problems_are_read_and_their_answers_distinguished(name, count):
    file = open_problems(str(Path(DATA) / "arpo" / f"eval_{name}.jsonl"))
    assert len(file.problems) == count
    answers = [problem.answer for problem in file.problems]
    assert all(same(answer, answer) for answer in answers)
    wrong = sum(same(answer, f"{answer} + 1") for answer in answers)
    numbers = [answer for answer in answers if "=" not in answer]
    confused = [pair for pair in pairwise(numbers) if pair[0] != pair[1] and same(*pair)]
    assert wrong == 0 and not confused


USER = {"role": "user", "content": "Half of 14?"}
SYSTEM = {"role": "system", "content": "Think."}
COLUMNS = {
    "GSM8K": {"question": "Half of 14?", "answer": "14 / 2 = <<14/2=7>>7\n#### 7"},
    "MATH": {"problem": "Half of 14?", "solution": r"It is $\boxed{7}$.", "level": "Level 1"},
    "AIME": {"Problem": "Half of 14?", "Answer": 7, "Solution": "long"},
    "NuminaMath": {"problem": "Half of 14?", "solution": "So 7.", "answer": "7"},
    "expected_answer": {"problem": "Half of 14?", "expected_answer": "7"},
    "a chat": {"prompt": [SYSTEM, USER], "answer": "7"},
    "a prompt": {"prompt": "Half of 14?", "ground_truth": "7"},
    "DAPO": {"prompt": [USER], "ability": "MATH", "reward_model": {"ground_truth": "7"}},
    "verl": {
        "prompt": [{"role": "user", "content": "Half of 14? Answer after ####."}],
        "ability": "math",
        "reward_model": {"ground_truth": "7", "style": "rule"},
        "extra_info": {"question": "Half of 14?", "split": "train"},
    },
}


@pytest.mark.parametrize("row", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_usual_columns_of_mathematics_sets_are_read(tmp_path, row, ending):
    path = tmp_path / f"x.{ending}"
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row if ending == "jsonl" else [row]))
    (problem,) = open_problems(str(path)).problems
    assert (problem.question, problem.answer) == ("Half of 14?", "7")


@needs_data
def test_math_rows_of_a_mixed_parquet_file_are_read():
    pytest.importorskip("pyarrow")
    file = open_problems(str(Path(DATA) / "arpo" / "train_10k.parquet"))
    # One of the 5,000 rows has a blank answer.
    assert len(file.problems) == 4999
    assert {problem.kind for problem in file.problems} == {"train_10k"}


# ---- the environment -----------------------------------------------------------------------------


def test_invalid_setting_states_what_was_expected(tmp_path):
    for settings, message in [
        ({"difficulty": 6}, "difficulty: got 6, expected 1 to 5"),
        ({"kinds": "algbra"}, "Did you mean 'algebra'"),
        ({"notation": "xml"}, "expected one of tags, json"),
        ({"data": "/no/such.jsonl"}, "there is no file /no/such.jsonl"),
        ({"data_split": "tset"}, "Did you mean 'test'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            make(**settings)


@pytest.mark.usefixtures("confined")
def test_interpreter_keeps_variables_and_forks_with_the_environment():
    env = make()
    begin(env, "algebra-2-0")
    env.step("<python>x = [1]</python>")
    twin = fork_env(env)
    observation, *_ = env.step("<python>x.append(2)\nprint(len(x))\nx</python>")
    assert observation == "<result>\n2\n[1, 2]\n</result>"
    assert "[1]" in twin.step("<python>x</python>")[0]
    begin(env, "algebra-2-0")
    assert "NameError: name 'x' is not defined" in env.step("<python>x</python>")[0]
    twin.close()
    env.close()


@pytest.mark.usefixtures("confined")
def test_errors_and_empty_output_are_reported_without_penalty():
    env = make(seconds=0.5)
    begin(env, "algebra-2-0")
    for code, message in [
        ("1 / 0", "line 1: ZeroDivisionError: division by zero"),
        ("x = 1", "(no output)"),
        ("while True: pass", "Timeout: interrupted after 0.5 s"),
        ("import os; os._exit(1)", "was restarted: its variables are lost."),
    ]:
        observation, reward, done, _, info = env.step(f"<python>{code}</python>")
        assert message in observation
        assert (reward, done, info["action_valid"]) == (0.0, False, True)
    env.close()


@pytest.mark.parametrize("notation", ["tags", "json"])
def test_the_first_answer_counts(notation):
    env = make(notation=notation)
    begin(env, "counting-2-5")
    *_, last = env.oracle()
    _, reward, done, _, info = env.step(env.write("answer", "-1"))
    assert (reward, done, info["won"], info["score"]) == (0.0, True, False, 0.0)
    assert env.step(last)[1] == 0.0
    begin(env, "counting-2-5")
    assert env.step(last)[1:3] == (1.0, True)


@pytest.mark.usefixtures("confined")
def test_json_calls_pass_the_checker():
    settings = {"notation": "json", "kinds": "counting", "difficulty": 1}
    check_environment("agentgym/PythonMath-v0", BRISK, **settings)


@pytest.mark.usefixtures("confined")
def test_tool_session_closes():
    one = PythonTool()
    assert one("1 + 1") == "2"
    assert one._session._sockets is not None
    one.close()
    assert one._session._sockets is None
