"""BabyAI as text against `minigrid` itself."""

import re
import time
from typing import Any

import numpy as np
import pytest

from agentgym.env.registry import environments, world
from agentgym.errors import ConfigError, UnknownTask

pytest.importorskip("minigrid")
import gymnasium

from agentgym_envs.babyai import levels
from agentgym_envs.babyai.env import COMMANDS, BabyAI
from agentgym_envs.babyai.view import named, seen

LEVELS = ("GoToLocal", "PutNextLocal", "Unlock", "BossLevel", "KeyInBox", "PutNextS5N2Carrying")


def shown(observation):
    """Type, colour and state of each cell that the package's image shows, except walls."""
    from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

    found = {}
    for i in range(7):
        for j in range(7):
            kind, colour, state = observation["image"][i, j]
            what = IDX_TO_OBJECT[int(kind)]
            if what not in ("unseen", "empty") and (i, j) != (3, 6):
                found[6 - j, i - 3] = (what, IDX_TO_COLOR[int(colour)], int(state))
    return found


def reported(level):
    """The same from our view."""
    found = {}
    for thing, ahead, right in seen(level):
        if thing.type == "wall":
            found[ahead, right] = ("wall", "grey", 0)
        else:
            found[ahead, right] = (thing.type, thing.color, int(thing.encode()[2]))
    return found


@pytest.mark.parametrize("name", LEVELS)
def test_steps_and_views_are_those_of_the_package(name):
    env = BabyAI(levels=name, reward="published")
    levels.registered()
    theirs: Any = gymnasium.make(f"BabyAI-{name}-v0", disable_env_checker=True).unwrapped
    rng = np.random.default_rng(0)
    for seed in (1, 2):
        env.reset(seed=0, options={"task": f"{name}-{seed}"})
        theirs.reset(seed=seed)
        observation = theirs.gen_obs()  # Where one begins with a thing, reset's is from before.
        assert env._opening.goal == f"Your mission: {theirs.mission}."
        plan, over, turn = list(env.oracle() or ()), False, 0
        while not over and turn < 150:
            assert reported(env._level) == shown(observation)
            turn += 1
            random = turn < 20 or not plan
            command = str(rng.choice(COMMANDS)) if random else plan.pop(0)
            _, paid, over, _, _ = env.step(command)
            observation, reward, ended, _, _ = theirs.step(COMMANDS.index(command))
            assert (paid, over) == (reward, ended)
            if turn == 20:
                plan = list(env.oracle() or ())


def test_the_bot_wins_and_a_win_is_worth_one():
    env = BabyAI(test_tasks=12)
    for split in ("test", "maze", "sequence"):
        for task in env.tasks(split)[:: 1 if split == "test" else 4]:
            env.reset(seed=0, options={"task": task})
            steps = [env.step(command) for command in env.oracle()]
            assert [step[1] for step in steps] == [0.0] * (len(steps) - 1) + [1.0]
            assert steps[-1][4]["won"]
            assert env.step("turn left")[1] == 0.0


def test_a_view_is_told_in_words():
    env = BabyAI()
    text, info = env.reset(seed=0, options={"task": "PutNextLocal-2000004"})
    assert info["goal"] == "Your mission: put the yellow ball next to the grey key."
    assert text == (
        "You face west. You see a yellow ball 2 steps right. Walls: 1 step ahead, 1 step left."
    )
    assert env.step("go forward")[0] == f"Nothing happens. {text}"
    for command in ("turn right", "go forward", "pick up"):
        text, _, _, _, info = env.step(command)
    assert info["action_valid"] and text.endswith("You carry a yellow ball.")
    doors = {named(thing) for thing in levels.make("Unlock", 1).grid.grid if is_door(thing)}
    assert all(re.fullmatch(r"a (closed|locked) \w+ door", each) for each in doors) and doors


def is_door(thing):
    return thing is not None and thing.type == "door"


def test_admissible_commands_change_something_and_the_others_do_not():
    env = BabyAI(levels="BossLevel", admissible=True)
    for task in env.tasks("test")[:2]:
        _, info = env.reset(seed=0, options={"task": task})
        for command in env.oracle()[:25]:
            for other in COMMANDS:
                fork = env.fork()
                text, *_, after = fork.step(other)
                possible = other in info["admissible_commands"]
                assert after["action_valid"] == possible
                assert text.startswith("Nothing happens. ") != (possible or after["won"])
            *_, info = env.step(command)


def test_a_fork_goes_on_by_itself():
    env = BabyAI(levels="BossLevel")
    env.reset(seed=0, options={"task": env.tasks("test")[0]})
    plan = env.oracle()
    for command in plan[:10]:
        env.step(command)
    fork, before = env.fork(), env.render()
    assert [fork.step(command)[0] for command in plan[10:]][-1] == "The mission is accomplished."
    assert env.render() == before and not env._last.done
    assert [env.step(command)[4]["won"] for command in plan[10:]][-1]


@pytest.mark.parametrize("action", ["", "go", "pickup", "x" * 1_000_000, "toggle\nx", "turn left!"])
def test_an_unknown_command_changes_nothing_and_is_answered_in_one_line(action):
    env = BabyAI()
    env.reset(seed=0, options={"task": "GoToLocal-5"})
    before, start = reported(env._level), time.monotonic()
    text, reward, over, _, info = env.step(action)
    assert (reward, over, info["action_valid"]) == (0.0, False, False)
    assert text.startswith("Unknown command. ") and "\n" not in text and len(text) < 200
    assert reported(env._level) == before and time.monotonic() - start < 1


def test_bad_arguments_and_tasks_are_named():
    with pytest.raises(ConfigError, match="levels: got 'room;maze'"):
        BabyAI(levels="room;maze")
    with pytest.raises(ConfigError, match=r"no level 'BosLevel'.* Did you mean 'BossLevel'"):
        levels.make("BosLevel", 0)
    env = BabyAI()
    for task in ("GoToLocal", "GoToLocal--1", "GoToLocal-01", "Nothing-3", "GoToLocal-²", ""):
        with pytest.raises(UnknownTask):
            env.reset(options={"task": task})


def test_layouts_of_the_splits_differ():
    """Seeds are disjoint; so are most of the layouts, in the smallest levels, too."""
    env = BabyAI(train_tasks=192, test_tasks=48)
    train, test = (
        {(told_of(env, task), env._opening.goal) for task in env.tasks(split)}
        for split in ("train", "test")
    )
    assert not train & test


def told_of(env, task):
    env.reset(options={"task": task})
    grid = env._level.grid.grid
    cells = tuple((n, x.type, x.color) for n, x in enumerate(grid) if x and x.type != "wall")
    return cells, env._level.agent_pos, env._level.agent_dir


def test_what_the_package_registers_is_no_text_environment():
    world("agentgym/BabyAI-v0").reset(seed=0)
    assert "BabyAI-GoToLocal-v0" in gymnasium.registry
    assert not [id_ for id_ in environments() if id_.startswith(("BabyAI", "MiniGrid"))]
