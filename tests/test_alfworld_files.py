import json
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, UnknownTask
from agentgym.testing import CheckSettings, check_environment
from agentgym_envs.alfworld import engine, files, games, goals, problem, tasks
from agentgym_envs.alfworld.oracle import winning_commands

ENV = "agentgym/ALFWorld-v0"

try:
    distribution("alfworld")
except PackageNotFoundError:
    pytest.skip("the tables of ALFWorld are not installed", allow_module_level=True)


@pytest.fixture
def data(tmp_path):
    """Two games of each split, as official folders."""
    root = tmp_path / "json_2.1.1"
    for split in tasks.SPLITS:
        for task in tasks.panel_ids(split, 2, problem.TASK_TYPES):
            files.write(root, split, task)
    return tmp_path


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def games_of(data, **kwargs):
    return [
        id_ for split in tasks.SPLITS for id_ in world(ENV, games=str(data), **kwargs).tasks(split)
    ]


def test_a_folder_of_games_keeps_the_contract_of_an_environment(data):
    check_environment(ENV, CheckSettings(steps=100, resets=300, seconds=1.0), games=str(data))


def test_a_game_read_from_its_file_is_the_game_that_was_written(tmp_path):
    for task_type, spoken in zip(problem.TASK_TYPES, ["new", "old"] * 3, strict=True):
        (task,) = tasks.panel_ids("train", 1, (task_type,))
        made = games.generated(task, spoken)
        home = files.write(tmp_path, "train", task, spoken)
        read = files.load(tmp_path, home.relative_to(tmp_path).as_posix())
        assert engine.opening(read) == engine.opening(made)
        assert (read.start, read.places, read.things) == (made.start, made.places, made.things)
        plan = winning_commands(made, made.start, searching=False)
        assert list(plan) == json.loads((home / files.GAME).read_text())["walkthrough"]
        state = read.start
        for command in plan:
            state, _ = engine.do(read, state, engine.moves(read, state)[command])
        done, wanted = goals.progress(read, state)
        assert done == wanted


def test_games_are_selected_by_the_rules_of_alfworld(data):
    chosen = games_of(data)
    assert len(chosen) == 6
    split, name, trial = chosen[0].split("/")
    root = data / "json_2.1.1"
    copies = {
        "pick_and_place_with_movable_recep-Cup-None-Desk-301": {},
        "pick_and_place_simple-AppleSliced-None-Fridge-1": {},
        "unsolvable": {"solvable": False},
        "unknown": {"solvable": None},
        "text": {"solvable": "yes"},
        "good": {},
    }
    for folder, fields in copies.items():
        home = root / split / folder / trial
        home.mkdir(parents=True)
        for file in (files.GAME, files.TRAJECTORY):
            (home / file).write_text((root / split / name / trial / file).read_text())
        change(home / files.GAME, **fields)
    (root / split / "lacking" / trial).mkdir(parents=True)
    (root / split / "lacking" / trial / files.TRAJECTORY).write_text("{}")
    files.listed.cache_clear()
    assert games_of(data) == sorted([*chosen, f"{split}/good/{trial}"], key=_official_order)
    types = {id_.split("/")[1].split("-")[0] for id_ in chosen}
    one = sorted(types)[0]
    assert all(one in id_ or "good" in id_ for id_ in games_of(data, types=one))


def _official_order(id_):
    return tasks.SPLITS.index(id_.split("/")[0]), id_


def test_the_environment_variable_names_the_official_folder(data, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(data))
    assert world(ENV, games="official").tasks("test") == world(ENV, games=str(data)).tasks("test")
    monkeypatch.delenv("ALFWORLD_DATA")
    with pytest.raises(ConfigError, match="ALFWORLD_DATA"):
        world(ENV, games="official")
    with pytest.raises(ConfigError, match="no ALFWorld games"):
        world(ENV, games=str(data / "nowhere"))


def test_a_file_is_parsed_and_nothing_in_it_is_executed(data):
    task = games_of(data)[0]
    path = data / "json_2.1.1" / task / files.GAME
    trap = data / "trap"
    grammar = json.loads(path.read_text())["grammar"]
    code = "{open('" + str(trap) + "', 'w')}"
    change(path, grammar=grammar.replace("Your task is to: ", "Your task is to: " + code))
    env = world(ENV, games=str(data))
    observation, info = env.reset(options={"task": task})
    assert code in info["goal"] and code in observation
    env.step("look")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"grammar": "action look {}"}, "grammar is not ALFWorld's"),
        ({"grammar": ("You open the {r.name}.", "The {r.name} opens.")}, "other sentences than"),
        ({"grammar": ("You pick up", "You take")}, "other sentences than"),
        ({"pddl_domain": ("(not (opened ?r))", "(opened ?r)")}, "other rules than"),
        ({"pddl_problem": "(define"}, "not closed"),
        ({"pddl_problem": "(define (:objects) (:init) (:goal (and)))"}, "six families"),
    ],
)
def test_a_damaged_game_gives_a_one_line_error_that_names_the_file(data, fields, expected):
    task = games_of(data)[0]
    path = data / "json_2.1.1" / task / files.GAME
    for name, value in fields.items():
        if isinstance(value, tuple):
            before = json.loads(path.read_text())[name]
            assert value[0] in before
            fields = {name: before.replace(*value)}
    change(path, **fields)
    with pytest.raises(EnvError, match=expected) as error:
        world(ENV, games=str(data)).reset(options={"task": task})
    assert task in str(error.value) and "\n" not in str(error.value)
    (data / "json_2.1.1" / task / files.GAME).write_text("[")
    with pytest.raises(EnvError, match="no JSON"):
        world(ENV, games=str(data)).reset(options={"task": task})


@pytest.mark.parametrize(
    "task", ["../train/a/b", "train/../x", "train/a/b", "/etc/passwd", "train"]
)
def test_an_id_cannot_point_outside_the_folder(data, task):
    with pytest.raises(UnknownTask):
        world(ENV, games=str(data)).reset(options={"task": task})


def test_a_failed_write_leaves_no_partial_files(tmp_path, monkeypatch):
    (task,) = tasks.panel_ids("train", 1, problem.TASK_TYPES)
    monkeypatch.setattr(files, "STATE", "no/such/folder")
    with pytest.raises(OSError):
        files.write(tmp_path, "train", task)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
