"""Environments of other libraries whose packages are here: Gymnasium; and what all kinds share."""

import json

import gymnasium
import pytest
from gymnasium.envs.registration import load_env_creator

from agentgym.cli import main
from agentgym.env import schemes
from agentgym.env.base import Opening
from agentgym.env.registry import EnvFactory, arguments, full_id, label, make, spec, world
from agentgym.errors import ConfigError, EnvError, NotReplayable, UnknownTask
from agentgym.interop.foreign import ForeignEnv, Named, Reply
from agentgym.interop.rows import read_rows, split_rows
from agentgym.testing import CheckSettings
from agentgym.testing.environments import findings
from agentgym.testing.findings import Verdict

TEXT = '''
import gymnasium
from gymnasium import spaces

class Parrot(gymnasium.Env):
    """Say the word that the parrot likes."""
    observation_space = spaces.Text(100)
    action_space = spaces.Text(20)

    def __init__(self, words=("red", "blue")):
        self.words = words

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word = self.words[int(self.np_random.integers(len(self.words)))]
        return "A parrot looks at you", {}

    def step(self, action):
        right = action == self.word
        return ("Thanks" if right else "Squawk"), float(right), right, False, {}
'''


def test_frozen_lake_is_played_in_text():
    env = world("gym:FrozenLake-v1", env_kwargs={"is_slippery": False})
    opening, info = env.reset(seed=0, options={"task": "seed-3"})
    assert opening.strip().startswith("[S]FFF") and "number from 0 to 3" in info["manual"]
    for action in "1121212"[:5]:
        text, reward, terminated, _, info = env.step(action)
    assert (reward, terminated) == (0.0, False)
    twin = env.fork()
    assert twin.step("2") == env.step("2")
    text, reward, terminated, _, info = env.step("fly")
    assert "This is no action" in text and not info["action_valid"]
    assert make("gym:FrozenLake-v1").spec.max_episode_steps == 100


def test_it_is_won_and_scored_by_its_rewards():
    env = world("gym:FrozenLake-v1", env_kwargs={"is_slippery": False})
    env.reset(seed=0)
    for action in "112122":
        _, reward, terminated, _, info = env.step(action)
    assert terminated and info["won"] and (reward, info["score"]) == (1.0, 1.0)


def test_a_text_environment_in_a_file_is_played(tmp_path):
    (tmp_path / "parrot.py").write_text(TEXT)
    name = full_id(f"gym:{tmp_path / 'parrot.py'}:Parrot")
    assert label(name) == "gym:parrot.py:Parrot" and schemes.split(name)[0] == "gym"
    env = world(name, env_kwargs={"words": ["green"]})
    assert env.reset(seed=0)[0] == "A parrot looks at you"
    assert env.step("green")[2] and "parrot likes" in env.manual()
    assert "expected" not in env.step("green")[0]
    _, _, _, _, info = env.step("x" * 50)  # Longer than its action space allows.
    assert not info["action_valid"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gym:NoSuchThing-v0", "gym:NoSuchThing-v0 cannot be made"),
        ("gym:CartPole-v1", "expected texts .* or a drawing in text"),
        ("gym:Pendulum-v1", "or a drawing in text"),
    ],
)
def test_what_cannot_be_played_in_text_is_one_line(name, sentence):
    with pytest.raises(ConfigError, match=sentence) as problem:
        world(name)
    assert "\n" not in str(problem.value)


def test_gymnasium_keeps_the_contract():
    quick = CheckSettings(steps=40, resets=60, seconds=1.0)
    found = list(findings("gym:FrozenLake-v1", quick))
    assert [each.note for each in found if each.verdict is Verdict.FAILED] == []


# ---- what all kinds share --------------------------------------------------------------------


class Toy(ForeignEnv):
    """Its answers are set by the test."""

    kind = "toy"
    replies: list = []  # noqa: RUF012

    def begin(self, task, seed):
        self.queue = list(self.replies)
        return Opening(f"Started {seed}.", "Win.")

    def respond(self, action):
        return self.queue.pop(0)


def toy(*replies, **kwargs):
    env = type("Toy", (Toy,), {"replies": list(replies)})("x", **kwargs)
    env.reset(options={"task": "seed-4"})
    return env


def test_rewards_add_up_to_success():
    env = toy(Reply("a", 0.5), Reply("b", 1.5, True), success=2.0)
    assert env.step("x")[4]["score"] == 0.25
    _, _, terminated, _, info = env.step("y")
    assert terminated and info["won"] and info["score"] == 1.0
    unfinished = toy(Reply("a", 5.0))
    info = unfinished.step("x")[4]
    assert not info["won"] and info["score"] == 0.99
    assert toy(Reply("a", -1.0)).step("x")[4]["score"] == 0.0


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(3), "with 3 of type int, expected text"),
        (Reply("a", "1"), "the reward '1', expected a number"),
        (Reply("a", True), "the reward True, expected a number"),
        (Reply("a", float("nan")), "expected a finite number"),
    ],
)
def test_an_answer_of_the_wrong_type_is_one_line(reply, sentence):
    with pytest.raises(EnvError, match=sentence):
        toy(reply).step("x")


def test_a_fork_replays_the_actions():
    env = toy(Reply("a", 0.25), Reply("b", 0.5), Reply("c", 0.25, True))
    env.step("x")
    env.step("y")
    twin = env.fork()
    assert twin.task_id == "seed-4" and twin.step("z") == env.step("z")
    env.reset(options={"task": "seed-4"})
    env.step("x")
    type(env).replies = [Reply("other")]
    with pytest.raises(NotReplayable, match="answered action 1 of task 'seed-4' differently"):
        env.fork()


def test_arguments_out_of_range_are_one_line():
    for given, sentence in (
        ({"num_tasks": 3}, "num_tasks is 3, expected 10 to"),
        ({"success": 0.0}, "success is 0.0, expected a sum"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            toy(**given)
    with pytest.raises(ConfigError, match=r"has no argument 'nmu_tasks'.*Did you mean"):
        world("gym:FrozenLake-v1", nmu_tasks=3)
    assert {"num_tasks", "success", "env_kwargs"} <= {a.name for a in arguments("gym:Taxi-v4")}


def test_a_factory_of_a_foreign_environment_is_a_plain_value():
    import pickle

    factory = pickle.loads(pickle.dumps(EnvFactory(env="gym:FrozenLake-v1", max_turns=5)))
    assert factory(None).spec.max_episode_steps == 5 and factory.env == "gym:FrozenLake-v1"


def test_rows_are_split_by_their_field_or_in_tens(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(20)))
    rows = read_rows(str(file))
    assert split_rows(rows, "x", "valid") == ["row-8", "row-18"]
    named = [{"split": "test"}, {"split": "train"}]
    assert split_rows(named, "x", "test") == ["row-0"] and split_rows(named, "x", "valid") == []
    with pytest.raises(ConfigError, match="has no split 'noon'"):
        split_rows(rows, "x", "noon")
    for text, sentence in (("{", "is no JSON"), ("", "holds no rows"), ("[3]", "holds no rows")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            read_rows(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rows(str(tmp_path / "none"))


def test_envs_lists_the_kinds_and_what_they_lack(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["envs"]) == 0
    shown = capsys.readouterr().out
    for kind in schemes.SCHEMES:
        assert f"{kind}:..." in shown
    assert "forks, seeds, listed tasks" in shown


def test_a_kind_whose_package_is_missing_names_it(monkeypatch):
    import sys

    for kind, package in (("textarena", "textarena"), ("reasoning-gym", "reasoning_gym")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=f"pip install {kind}"):
            world(f"{kind}:x")


def test_an_unknown_task_is_refused():
    with pytest.raises(UnknownTask, match="has no task 'seed-5000'"):
        world("gym:FrozenLake-v1").reset(options={"task": "seed-5000"})
    assert spec("gym:FrozenLake-v1").max_episode_steps == 100
    assert gymnasium.spec("FrozenLake-v1").max_episode_steps == 100


@pytest.mark.parametrize("kind", schemes.SCHEMES)
def test_every_kind_says_who_plays_a_target_and_how_long(kind):
    try:
        named = load_env_creator(schemes.SCHEMES[kind].entry_point)
    except ImportError:
        pytest.skip("its package is not here")
    assert issubclass(named, Named) and named.kind == kind


COUNTER = '''
class Counter:
    """Count to three."""

    def reset(self, **row):
        self.count = 0
        return "Count."

    def add(self) -> str:
        """Add one."""
        self.count += 1
        return str(self.count)

    def get_reward(self) -> float:
        return float(self.count == 3)
'''


def test_a_class_as_trl_takes_it_needs_no_package(tmp_path):
    (tmp_path / "counter.py").write_text(COUNTER)
    name = f"trl:{tmp_path / 'counter.py'}:Counter"
    env = world(name)
    assert isinstance(env, Named) and env.name == name and spec(name).max_episode_steps == 50
    env.close()
