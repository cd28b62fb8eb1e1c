import json
import subprocess
import sys
from collections import Counter

import pytest

from agentgym.env.panel import panel
from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym_envs.datafiles import split_of

ENVS = ["agentgym/PythonMath-v0", "agentgym/DeepSearch-v0"]
SPLITS = ("train", "valid", "test")


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def rows(count, word="number"):
    return [
        {"question": f"What is {word} {n}?", "answer": str(n), "paragraphs": PARAGRAPHS}
        for n in range(count)
    ]


PARAGRAPHS = [{"title": "Numbers", "paragraph_text": "There are many.", "is_supporting": True}]


def questions(env, split):
    found = []
    for task in env.tasks(split):
        found.append(env.reset(options={"task": task})[1]["goal"])
    return found


@pytest.mark.parametrize("id_", ENVS)
def test_rows_are_split_by_hash_into_disjoint_parts_that_do_not_depend_on_the_file(tmp_path, id_):
    one = world(id_, data=write(tmp_path / "mine.jsonl", rows(200)))
    more = world(id_, data=write(tmp_path / "more.jsonl", [*rows(50, "digit"), *rows(200)]))
    parts = {split: questions(one, split) for split in SPLITS}
    assert sum(map(len, parts.values())) == 200
    assert 140 < len(parts["train"]) < 180 and len(parts["valid"]) > 8 and len(parts["test"]) > 8
    assert not set(parts["train"]) & set(parts["valid"]) and not set(parts["valid"]) & set(
        parts["test"]
    )
    for split in SPLITS:
        assert set(parts[split]) <= set(questions(more, split))


def test_the_hash_is_the_same_in_every_process():
    code = (
        "from agentgym_envs.datafiles import split_of; print(*map(split_of, map(str, range(60))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert found == [split_of(str(n)) for n in range(60)]
    shares = Counter(split_of(f"question {n}") for n in range(4000))
    assert shares["train"] == pytest.approx(3200, abs=120)
    assert shares["valid"] == pytest.approx(400, abs=80)


def test_equal_questions_are_in_one_split(tmp_path):
    same = [{"question": q, "answer": "1"} for q in ("Who  asks?", "Who asks? ", "Who asks?")]
    env = world(ENVS[0], data=write(tmp_path / "x.jsonl", same))
    assert sorted(len(env.tasks(split)) for split in SPLITS) == [0, 0, 3]


@pytest.mark.parametrize("id_", ENVS)
def test_a_whole_file_can_be_one_split(tmp_path, id_):
    path = write(tmp_path / "mine.jsonl", rows(5))
    for chosen in SPLITS:
        env = world(id_, data=path, data_split=chosen)
        assert [len(env.tasks(split)) for split in SPLITS] == [
            5 if split == chosen else 0 for split in SPLITS
        ]
    named = write(tmp_path / "eval_mine.jsonl", rows(5))
    assert len(world(id_, data=named).tasks("test")) == 5
    assert len(world(id_, data=named, data_split="hash").tasks("test")) < 5


@pytest.mark.parametrize("id_", ENVS)
def test_a_folder_holds_a_file_per_split_and_keeps_held_out_questions_out_of_training(
    tmp_path, id_
):
    write(tmp_path / "train.jsonl", rows(6))
    write(tmp_path / "dev.json", rows(2, "digit"))
    write(tmp_path / "test-00000-of-00001.jsonl", [*rows(3, "letter"), rows(1)[0]])
    (tmp_path / "notes.txt").write_text("no rows")
    env = world(id_, data=str(tmp_path))
    assert [len(env.tasks(split)) for split in SPLITS] == [5, 2, 4]
    assert not any("number 0?" in goal for goal in questions(env, "train"))
    assert any("number 0?" in goal for goal in questions(env, "test"))


@pytest.mark.parametrize("id_", ENVS)
def test_an_empty_split_is_reported_in_one_line(tmp_path, id_):
    path = write(tmp_path / "eval.jsonl", rows(3))
    env = world(id_, data=path, split="train")
    with pytest.raises(
        ConfigError, match=r"no tasks in split 'train' .*test 3.*data_split"
    ) as error:
        env.reset(seed=0)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"no tasks in split 'train'"):
        panel(id_, split="train", data=path)


@pytest.mark.parametrize("id_", ENVS)
def test_a_folder_without_splits_and_an_unknown_split_are_refused(tmp_path, id_):
    (tmp_path / "mine.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="no files named after splits"):
        world(id_, data=str(tmp_path))
    with pytest.raises(ConfigError, match="there is no file"):
        world(id_, data=str(tmp_path / "no"))
    path = write(tmp_path / "x.jsonl", rows(2))
    with pytest.raises(ConfigError, match="Did you mean 'test'"):
        world(id_, data=path, data_split="tset")


@pytest.mark.parametrize("id_", ENVS)
@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_line_separators_inside_a_text_do_not_end_a_row(tmp_path, id_, mark):
    row = {**rows(1)[0], "question": f"One{mark}two?"}
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    env = world(id_, data=str(path))
    assert len(env.tasks("test")) == 1


@pytest.mark.parametrize("id_", ENVS)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_byte_order_mark_is_skipped(tmp_path, id_, ending):
    content = json.dumps(rows(1) if ending == "json" else rows(1)[0])
    path = tmp_path / f"test.{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert len(world(id_, data=str(path)).tasks("test")) == 1
