"""TextArena, reasoning-gym and SkyRL-Gym here, and our environments in SkyRL-Gym."""

import json

import pytest

pytest.importorskip("textarena")
pytest.importorskip("reasoning_gym")
pytest.importorskip("skyrl_gym")

import skyrl_gym

from agentgym.env.registry import world
from agentgym.errors import ConfigError
from agentgym.testing import CheckSettings
from agentgym.testing.environments import findings
from agentgym.testing.findings import Verdict

QUICK = CheckSettings(steps=60, resets=100, seconds=2.0)


def violations(name, **kwargs):
    found = findings(name, QUICK, **kwargs)
    return [finding.note for finding in found if finding.verdict is Verdict.FAILED]


# ---- reasoning-gym ---------------------------------------------------------------------------


def test_a_question_of_reasoning_gym_is_asked_and_scored():
    env = world("reasoning-gym:basic_arithmetic")
    question, info = env.reset(seed=0, options={"task": "seed-7"})
    answer = env.oracle()[0]
    import reasoning_gym

    entry = reasoning_gym.create_dataset("basic_arithmetic", seed=7, size=1)[0]
    assert (question, answer) == (entry["question"], entry["answer"])
    _, reward, terminated, _, info = env.step(answer)
    assert (reward, terminated, info["won"], info["score"]) == (1.0, True, True, 1.0)
    env.reset(seed=0, options={"task": "seed-7"})
    assert env.step("no number")[4]["won"] is False


def test_a_dataset_that_reasoning_gym_lacks_is_one_line():
    with pytest.raises(ConfigError, match="reasoning-gym:basic_arithmetik"):
        world("reasoning-gym:basic_arithmetik")
    with pytest.raises(ConfigError, match="unexpected keyword"):
        world("reasoning-gym:basic_arithmetic", config={"length": 3})


@pytest.mark.parametrize("name", ["basic_arithmetic", "leg_counting"])
def test_reasoning_gym_keeps_the_contract(name):
    assert violations(f"reasoning-gym:{name}") == []


# ---- TextArena -------------------------------------------------------------------------------


def test_a_game_of_textarena_is_won():
    env = world("textarena:TowerOfHanoi-v0")
    opening, _ = env.reset(seed=0, options={"task": "seed-0"})
    assert "[A C]" in opening or "Tower" in opening
    moves = ["[A C]", "[A B]", "[C B]", "[A C]", "[B A]", "[B C]", "[A C]"]
    for move in moves:
        _, reward, terminated, _, info = env.step(move)
    assert terminated and info["won"] and reward == 1.0


def test_games_do_not_disturb_one_another_or_the_process():
    import random

    random.seed(3)
    expected = random.Random(3).random()
    one, two = world("textarena:GuessTheNumber-v0"), world("textarena:GuessTheNumber-v0")
    first = one.reset(options={"task": "seed-1"})[0]
    two.reset(options={"task": "seed-2"})
    played = [one.step(f"[{n}]")[0] for n in (5, 9, 12)]
    assert two.reset(options={"task": "seed-1"})[0] == first
    assert [two.step(f"[{n}]")[0] for n in (5, 9, 12)] == played
    assert random.random() == expected


def test_textarena_refuses_what_it_cannot_play_alone():
    with pytest.raises(ConfigError, match="cannot be made"):
        world("textarena:NoSuchGame-v0")
    with pytest.raises(ConfigError, match="no game for one player"):
        world("textarena:TicTacToe-v0").reset(seed=0)


def test_the_checker_finds_what_a_game_of_textarena_breaks():
    """It repeats an action of any length in its answer, and breaks nothing else."""
    (found,) = violations("textarena:GuessTheNumber-v0")
    assert "100000 characters were answered with" in found


# ---- SkyRL-Gym -------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "gsm8k.jsonl"
    row = {"prompt": "What is 6 times 7?", "reward_spec": {"ground_truth": "42"}}
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(20)))
    return str(file)


def test_a_row_of_skyrl_gym_is_played(rows):
    env = world("skyrl-gym:gsm8k", data=rows)
    assert [len(env.tasks(split)) for split in ("train", "valid", "test")] == [16, 2, 2]
    opening, info = env.reset(seed=0, options={"task": "row-3"})
    assert opening == "What is 6 times 7?"
    _, reward, terminated, _, info = env.step("#### 42")
    assert (reward, terminated, info["won"]) == (1.0, True, True)
    env.reset(seed=0, options={"task": "row-3"})
    assert env.step("#### 41")[4]["won"] is False


def test_skyrl_gym_without_rows_or_with_a_wrong_id_is_one_line(rows, tmp_path):
    with pytest.raises(ConfigError, match="--data FILE"):
        world("skyrl-gym:gsm8k")
    row = json.dumps({"prompt": "?"})
    (tmp_path / "bare.jsonl").write_text(row)
    env = world("skyrl-gym:gsm8k", data=str(tmp_path / "bare.jsonl"))
    with pytest.raises(ConfigError, match="refuses row-0: reward_spec field is required"):
        env.reset(options={"task": "row-0"})
    with pytest.raises(ConfigError, match=r"no such environment\. It has: aime, gsm8k"):
        world("skyrl-gym:gsm9k", data=rows)


def test_our_environment_is_played_by_skyrl_gyms_loop():
    from agentgym.interop.there import skyrl_gym as there

    name = there.register("hotter")
    own = world("hotter")
    own.reset(seed=0, options={"task": "hotter-12"})
    env = skyrl_gym.make(name, env_config={}, extras={"task": "hotter-12"})
    prompt, _ = env.init([])
    assert prompt[-1]["role"] == "user" and "I hide a number" in prompt[-1]["content"]
    total = 0.0
    for action in own.oracle():
        out = env.step(action)
        total += out["reward"]
        if not out["done"]:
            assert out["observations"][0]["role"] == "user"
    assert out["done"] and total == 1.0 and env.get_metrics()["won"] == 1.0
    env.close()
