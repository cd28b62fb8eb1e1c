"""Environments without registration, such as `file.py:ClassName`, and short names."""

import asyncio
import math
import re
import subprocess
import sys

import numpy
import pytest

from agentgym import make, panel
from agentgym.cli import main
from agentgym.env.process_pool import ProcessPool
from agentgym.env.registry import EnvFactory, arguments, full_id, label, recipe, spec, world
from agentgym.errors import ConfigError
from agentgym.types import Task

SOURCE = '''
from helper_beside import GREETING
from agentgym import Opening, Outcome, TextEnv
from agentgym.env import unknown_split, unknown_task

SPLITS = {"train": range(20), "valid": range(20, 30), "test": range(30, 40)}

class Doors(TextEnv):
    """Open the right one of many doors."""

    max_turns = 5

    def __init__(self, doors: int = 30, **kwargs):
        super().__init__(**kwargs)
        self.doors = doors

    def tasks(self, split):
        if split not in SPLITS:
            raise unknown_split("Doors", split, tuple(SPLITS))
        return [f"door-{n}" for n in SPLITS[split]]

    def start(self, task, rng):
        known = [id_ for split in SPLITS for id_ in self.tasks(split)]
        if task not in known:
            raise unknown_task("Doors", task, known)
        self.door = 1 + 7 * known.index(task) % self.doors
        return Opening(f"{GREETING}, {self.doors} doors.", "Open the right door.")

    def act(self, action):
        if action not in self.admissible():
            return Outcome("Say: open N.", valid=False)
        if action == f"open {self.door}":
            return Outcome("Right.", 1.0, 1.0, won=True, done=True)
        return Outcome("Lower." if int(action.split()[1]) > self.door else "Higher.")

    def manual(self):
        return "Say `open 3`. The right door ends the episode."

    def admissible(self):
        return tuple(f"open {n}" for n in range(1, self.doors + 1))

    def oracle(self):
        return (f"open {self.door}",)

class Unfinished(TextEnv):
    def act(self, action):
        return Outcome("")

class Other:
    pass
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "my_doors.py").write_text(SOURCE)
    (tmp_path / "helper_beside.py").write_text('GREETING = "You see"\n')
    (tmp_path / "recipe.yaml").write_text("steps: 3\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_doors.py"


def test_a_class_in_a_file_is_created_and_listed_like_a_registered_environment(file):
    name = "my_doors.py:Doors"
    env = make(name, doors=8)
    observation, info = env.reset(seed=0, options={"task": "door-1"})
    assert observation == "You see, 8 doors." and "`open 3`" in info["manual"]
    assert [env.step("open 1")[3] for _ in range(5)] == [False] * 4 + [True]
    assert spec(name).max_episode_steps == 5
    assert world(name, doors=8).doors == 8  # type: ignore[attr-defined]
    assert recipe(name) == file.parent / "recipe.yaml"
    assert full_id(name) == f"{file}:Doors" and full_id(full_id(name)) == full_id(name)


def test_panels_of_a_class_in_a_file_do_not_depend_on_its_folder(file):
    here, there = panel("my_doors.py:Doors"), panel(f"{file}:Doors")
    assert here == there and here.env == "my_doors.py:Doors" == label(f"{file}:Doors")
    assert here.digest == there.digest and {task.env for task in here.tasks} == {here.env}


def test_a_worker_process_runs_a_class_in_a_file_from_any_folder(file, monkeypatch):
    factory = EnvFactory(env="my_doors.py:Doors", kwargs={"doors": 8})
    monkeypatch.chdir("/")
    task = Task("my_doors.py:Doors", "door-1")

    async def play():
        async with ProcessPool(workers=1) as pool:
            handle = await pool.open(factory, task)
            opening = await handle.reset(task)
            return opening, await handle.step("open 8")

    opening, step = asyncio.run(play())
    assert opening.observation == "You see, 8 doors."
    assert step.observation == "Right." and step.terminated


def test_a_class_in_a_module_can_be_created(file):
    assert world("my_doors:Doors").tasks("test")[0] == "door-30"
    assert full_id("my_doors:Doors") == "my_doors:Doors" == panel("my_doors:Doors").env


def test_the_checker_accepts_a_class_in_a_file(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    quick = ["--effort.steps", "40", "--effort.resets", "60", "--effort.seconds", "1"]
    assert main(["check", "my_doors.py:Doors", *quick]) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "keeps the contract" in shown
    assert re.search("second process agrees +│ passed", shown)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my_doors.py:Dors", "has no class 'Dors'. Did you mean 'Doors'"),
        ("my_doors.py:Unfinished", "write the methods start, tasks"),
        ("my_doors.py:Other", "not a subclass of agentgym.TextEnv"),
        ("nowhere.py:Doors", "there is no file"),
        ("nowhere.module:Doors", "No module named 'nowhere'"),
        ("broken.py:Doors", "broken.py, line 2: ZeroDivisionError"),
        ("bad.py:Doors", "bad.py, line 1: SyntaxError"),
        ("leaves.py:Doors", "leaves.py, line 1: SystemExit"),
        ("my_doors:ns/Name-v0", "registers no environment 'ns/Name-v0'"),
        ("hoter", "Did you mean 'hotter'"),
    ],
)
def test_an_invalid_name_gives_a_one_line_error_with_the_reason(file, name, expected):
    (file.parent / "broken.py").write_text("import os\n1 / 0\n")
    (file.parent / "bad.py").write_text("def (:\n")
    (file.parent / "leaves.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ConfigError) as problem:
        make(name)
    assert expected in str(problem.value) and "\n" not in str(problem.value)


def test_a_module_that_registers_an_id_is_imported_first(file):
    (file.parent / "registers_one.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('mine/Doors-v0', 'my_doors:Doors', max_episode_steps=7)\n"
    )
    import gymnasium

    try:
        assert full_id("registers_one:mine/Doors-v0") == "mine/Doors-v0"
        assert spec("registers_one:mine/Doors-v0").max_episode_steps == 7
        assert panel("registers_one:mine/Doors-v0").env == "mine/Doors-v0"
    finally:
        gymnasium.registry.pop("mine/Doors-v0", None)


def test_short_names_work_in_every_function():
    assert make("hotter").unwrapped.high == 100  # type: ignore[attr-defined]
    assert panel("hotter") == panel("agentgym/Hotter-v0")
    assert spec("Hotter").max_episode_steps == 12
    assert EnvFactory(env="hotter").env == "agentgym/Hotter-v0"


def test_an_invalid_argument_gives_an_error_that_lists_the_valid_ones(file):
    with pytest.raises(ConfigError) as problem:
        make("hotter", hihg=3)
    assert str(problem.value) == (
        "agentgym/Hotter-v0 has no argument 'hihg'. Did you mean 'high'? "
        "Arguments: admissible, high, render_mode, split"
    )
    with pytest.raises(ConfigError, match="no argument 'doros'"):
        make("my_doors.py:Doors", doros=3)


@pytest.mark.parametrize(
    ("name", "given", "line"),
    [
        ("deepsearch", {"python": "no"}, "python is 'no', expected true or false"),
        ("deepsearch", {"admissible": "no"}, "admissible is 'no', expected true or false"),
        ("deepsearch", {"size": math.nan}, "size is nan, expected a whole number"),
        ("deepsearch", {"hops": True}, "hops is True, expected a whole number"),
        ("textworld", {"difficulty": 2.0}, "difficulty is 2.0, expected a text"),
        ("textworld", {"inventory": "no"}, "inventory is 'no', expected true or false"),
        ("pythonmath", {"seconds": "long"}, "seconds is 'long', expected a number"),
    ],
)
def test_an_argument_of_another_type_is_refused(name, given, line):
    with pytest.raises(ConfigError) as problem:
        make(name, **given)
    assert str(problem.value) == f"{full_id(name)}: {line}"


def test_an_argument_without_a_plain_type_is_left_to_the_environment(file):
    (file.parent / "typed.py").write_text(
        "from my_doors import Doors\n"
        "class Typed(Doors):\n"
        "    def __init__(self, doors: 'Unknown' = 3, open: int | None = None, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
    )
    make("typed.py:Typed", doors="many", open="no")
    make("hotter", high=numpy.int64(8), admissible=1, render_mode=None)


def test_arguments_are_listed_with_type_and_default():
    listed = {each.name: each for each in arguments("textworld")}
    assert listed["family"].default == "cooking" and listed["family"].type == "str"
    assert list(listed)[-3:] == ["split", "admissible", "render_mode"]
    assert listed["reward"].type == "Literal['outcome', 'dense']"
    searching = {each.name: each.type for each in arguments("deepsearch")}
    assert searching["names"] == "Literal['made-up', 'common']"
    assert {"data", "notation", "limits"} <= {each.name for each in arguments("deepsearch")}


PLUGIN = """
[agentgym.environments]
broken = {value}
[agentgym.algorithms]
also-broken = {value}
[agentgym.services]
broken-service = {value}
"""


@pytest.mark.parametrize("value", ["a_broken_plugin:register", "agentgym:no_such_name"])
def test_a_broken_plug_in_is_reported_once_and_skipped(tmp_path, value):
    (tmp_path / "a_broken_plugin.py").write_text("import not_installed_at_all\n")
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(PLUGIN.format(value=value))

    def run(*words):
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); " + "; ".join(words)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    listed = run("import agentgym", "print(agentgym.make('hotter').unwrapped.high)")
    assert listed.returncode == 0 and listed.stdout == "100\n"
    assert listed.stderr.count("package 'broken-plugin' is skipped") == 1
    quiet = "import warnings; warnings.simplefilter('ignore')"
    known = run(quiet, "from agentgym.plugins import algorithms", "print(*algorithms())")
    assert "grpo" in known.stdout and "also-broken" not in known.stdout
    refused = run(quiet, "from agentgym.plugins import algorithm", "algorithm('also-broken')")
    assert "ConfigError: 'also-broken' of package 'broken-plugin' cannot be" in refused.stderr
