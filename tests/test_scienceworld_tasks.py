"""ScienceWorld without its simulator: task ids, panels, and accepted commands."""

import json
import os
import sys
from pathlib import Path

import pytest

from agentgym.env.panel import panel
from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, MissingExtra, UnknownTask
from agentgym_envs.scienceworld import jvm, tasks, text

ENV = "agentgym/ScienceWorld-v0"
DATA = os.environ.get("AGENTGYM_DATA")
SPLITS = ("train", "valid", "test")


def ids(partition, split, names=tuple(tasks.SIZES)):
    return tasks.panel_ids(partition, split, names, "easy")


def test_the_official_splits_contain_every_variation_once():
    sizes = [len(ids("official", split)) for split in SPLITS]
    assert sizes == [3592, 1796, 1819]
    together = [id_ for split in SPLITS for id_ in ids("official", split)]
    assert len(set(together)) == len(together) == 7207
    for name, size in tasks.SIZES.items():
        specs = [tasks.parse(id_) for id_ in together]
        assert {s.variation for s in specs if s.name == name} == set(range(sum(size)))


def test_the_first_30_tasks_of_a_panel_have_30_different_names():
    for split in SPLITS:
        assert {tasks.parse(id_).name for id_ in ids("official", split)[:30]} == set(tasks.SIZES)


def test_the_default_panels_do_not_change():
    digests = {split: panel(ENV, split=split).digest[:16] for split in SPLITS}
    assert digests == {
        "train": "4fb067a84916200e",
        "valid": "4d1984080dca40fa",
        "test": "015d4e417d278c2c",
    }


@pytest.mark.parametrize("partition", tasks.PARTITIONS)
def test_the_splits_of_a_partition_are_disjoint(partition):
    together = [id_ for split in SPLITS for id_ in ids(partition, split)]
    assert len(set(together)) == len(together)


def test_epo_l2_trains_on_no_test_task():
    trained = {tasks.parse(id_).name for s in ("train", "valid") for id_ in ids("epo-l2", s)}
    tested = {tasks.parse(id_).name for id_ in ids("epo-l2", "test")}
    assert (len(trained), len(tested), len(trained & tested)) == (19, 10, 0)


@pytest.mark.skipif(not DATA, reason="AGENTGYM_DATA is not set")
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_epo_partitions_equal_the_published_index_files(level):
    path = Path(str(DATA)) / "sciworld_splits" / f"L{level}_idx.json"
    alphabetical = sorted(tasks.SIZES)
    for split, pairs in json.loads(path.read_text()).items():
        theirs = sorted(f"{alphabetical[task]}-easy-v{number}" for task, number in pairs)
        assert theirs == sorted(ids(f"epo-l{level}", split))


@pytest.mark.parametrize(
    "id_",
    [
        "boil",
        "boil-easy-v30",
        "boil-easy-v-1",
        "boil-easy-v03",
        "boil-easy-v²",
        "boil-hard-v0",
        "boil-openDoors+openDoors-v0",
        "power-component-noElectricalAction-v0",
        "Boil-easy-v0",
        "boil-easy-v0\n",
    ],
)
def test_a_malformed_task_id_is_rejected(id_):
    with pytest.raises(UnknownTask) as problem:
        tasks.parse(id_)
    assert "\n" not in str(problem.value)


def test_a_mistyped_task_gives_the_nearest_name_as_suggestion():
    with pytest.raises(UnknownTask, match="Did you mean 'boil-easy-v2'"):
        tasks.parse("bol-easy-v2")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tasks": "boil,mlet"}, "Did you mean 'melt'?"),
        ({"simplify": "esay"}, "Did you mean 'easy'?"),
        ({"simplify": "teleportAction+openDoors"}, "expected 'openDoors+teleportAction'"),
        ({"simplify": "noElectricalAction"}, "'power-component' cannot be done"),
        ({"partition": "epo"}, "expected one of official, epo-l0"),
        ({"observation": "terse"}, "expected one of answer, full"),
        ({"reward": "dens"}, "Did you mean 'dense'?"),
        ({"timeout": 0}, "expected a number of seconds above 0"),
    ],
)
def test_a_wrong_setting_is_a_one_line_error(settings, expected):
    with pytest.raises(ConfigError) as problem:
        world(ENV, **settings)
    assert expected in str(problem.value) and "\n" not in str(problem.value)


def test_simplifications_are_part_of_the_id():
    env = world(ENV, tasks="boil", simplify="openDoors+teleportAction")
    assert env.tasks("train")[0] == "boil-openDoors+teleportAction-v0"
    assert tasks.parse(env.tasks("train")[0]).simplifications == "openDoors,teleportAction"
    assert tasks.parse("boil-full-v0").simplifications == ""


@pytest.mark.parametrize(
    "action",
    [
        "reset task",
        " RESET  the task",
        "reset\ttask",
        "reset\x00task",
        "re\u017fet task",
        "go; reset a task",
    ],
)
def test_every_spelling_of_reset_task_is_rejected(action):
    assert text.command(action) == text.Refused("The task cannot be reset.")


@pytest.mark.parametrize("action", ["", " \t\n", "\x00", "look\nlook", "look\u2028look", "x" * 201])
def test_a_command_must_be_one_printable_line(action):
    assert isinstance(text.command(action), text.Refused)


@pytest.mark.parametrize("action", ["\x00open\x1b door\x7f", "open\u200b \ud800door\n"])
def test_unprintable_characters_are_removed(action):
    line = text.command(action)
    assert line == "open door" and line.isprintable()


def test_without_java_the_error_explains_the_installation(monkeypatch, tmp_path):
    pytest.importorskip("scienceworld")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    message = world(ENV).missing()
    assert "apt-get install default-jre-headless" in message and "\n" not in message
    with pytest.raises(MissingExtra) as problem:
        jvm.Jvm()
    assert str(problem.value) == message


def test_without_the_simulator_the_error_explains_the_installation(monkeypatch):
    monkeypatch.setitem(sys.modules, "scienceworld", None)
    assert 'pip install "agentic-gym[scienceworld]"' in world(ENV).missing()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Could not reserve space' >&2; exit 1", "Could not reserve space"),
        ("exit 1", "printed nothing"),
    ],
)
def test_a_java_that_does_not_start_gives_the_reason(monkeypatch, tmp_path, script, reason):
    pytest.importorskip("scienceworld")
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EnvError, match=reason) as problem:
        jvm.Jvm()
    assert "\n" not in str(problem.value)
