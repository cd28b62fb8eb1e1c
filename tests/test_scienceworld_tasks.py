"""ScienceWorld without its simulator: task ids, panels, and what may be said."""

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


def test_the_official_splits_are_all_variations_once():
    sizes = [len(ids("official", split)) for split in SPLITS]
    assert sizes == [3592, 1796, 1819]
    together = [id_ for split in SPLITS for id_ in ids("official", split)]
    assert len(set(together)) == len(together) == 7207
    for name, size in tasks.SIZES.items():
        specs = [tasks.parse(id_) for id_ in together]
        assert {s.variation for s in specs if s.name == name} == set(range(sum(size)))


def test_any_30_tasks_from_the_start_of_a_panel_are_one_of_each_name():
    for split in SPLITS:
        assert {tasks.parse(id_).name for id_ in ids("official", split)[:30]} == set(tasks.SIZES)


def test_the_default_panels_are_frozen():
    digests = {split: panel(ENV, split=split).digest[:16] for split in SPLITS}
    assert digests == {
        "train": "4fb067a84916200e",
        "valid": "4d1984080dca40fa",
        "test": "015d4e417d278c2c",
    }


@pytest.mark.parametrize("partition", tasks.PARTITIONS)
def test_no_variation_is_in_two_splits_of_a_partition(partition):
    together = [id_ for split in SPLITS for id_ in ids(partition, split)]
    assert len(set(together)) == len(together)


def test_the_unseen_tasks_of_epo_are_not_trained_on():
    trained = {tasks.parse(id_).name for s in ("train", "valid") for id_ in ids("epo-l2", s)}
    tested = {tasks.parse(id_).name for id_ in ids("epo-l2", "test")}
    assert (len(trained), len(tested), len(trained & tested)) == (19, 10, 0)


@pytest.mark.skipif(not DATA, reason="AGENTGYM_DATA is not set")
@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_epos_partitions_are_those_of_its_files(level):
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
def test_what_is_no_task_is_refused(id_):
    with pytest.raises(UnknownTask) as problem:
        tasks.parse(id_)
    assert "\n" not in str(problem.value)


def test_a_mistyped_task_is_told_the_nearest():
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
        ({"patience": 0}, "expected a number of seconds above 0"),
    ],
)
def test_a_wrong_setting_is_explained_in_one_line(settings, expected):
    with pytest.raises(ConfigError) as problem:
        world(ENV, **settings)
    assert expected in str(problem.value) and "\n" not in str(problem.value)


def test_simplifications_reach_the_id_and_the_simulator():
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
def test_no_spelling_of_resetting_the_task_passes(action):
    assert text.command(action) == text.Refused("The task cannot be reset.")


@pytest.mark.parametrize("action", ["", " \t\n", "\x00", "look\nlook", "look\u2028look", "x" * 201])
def test_what_is_no_single_printable_line_is_refused(action):
    assert isinstance(text.command(action), text.Refused)


@pytest.mark.parametrize("action", ["\x00open\x1b door\x7f", "open\u200b \ud800door\n"])
def test_only_printable_characters_are_sent(action):
    line = text.command(action)
    assert line == "open door" and line.isprintable()


def test_without_java_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    pytest.importorskip("scienceworld")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    told = world(ENV).missing()
    assert "apt-get install default-jre-headless" in told and "\n" not in told
    with pytest.raises(MissingExtra) as problem:
        jvm.Machine()
    assert str(problem.value) == told


def test_without_the_simulator_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scienceworld", None)
    assert 'pip install "agentic-gym[scienceworld]"' in world(ENV).missing()


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 'Could not reserve space' >&2; exit 1", "Could not reserve space"), ("exit 1", "noth")],
)
def test_a_java_that_does_not_start_says_why(monkeypatch, tmp_path, script, said):
    pytest.importorskip("scienceworld")
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EnvError, match=said) as problem:
        jvm.Machine()
    assert "\n" not in str(problem.value)
