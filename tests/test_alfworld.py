import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from random import Random

import pytest

import agentgym
from agentgym.env.registry import world
from agentgym.errors import ConfigError, EnvError, UnknownTask
from agentgym_envs.alfworld import engine, games, generate, goals, problem, tables, tasks, wording
from agentgym_envs.alfworld.game import build, names
from agentgym_envs.alfworld.oracle import next_command, winning_commands

ENV = "agentgym/ALFWorld-v0"

try:
    distribution("alfworld")
except PackageNotFoundError:
    pytest.skip("the tables of ALFWorld are not installed", allow_module_level=True)


def a_task(task_type, split="valid_unseen", number=0):
    return tasks.panel_ids(split, number + 1, (task_type,))[number]


def a_game(task_type, **kwargs):
    return games.generated(a_task(task_type, **kwargs))


def run(game, commands):
    """The state after commands, and all answers."""
    state, answers = game.start, []
    for command in commands:
        state, text = engine.do(game, state, engine.moves(game, state)[command])
        answers.append(text)
    return state, answers


# ---- the whole world -------------------------------------------------------------------------


@pytest.mark.parametrize("player", ["searching", "omniscient"])
@pytest.mark.parametrize("task_type", problem.TASK_TYPES)
def test_both_oracles_win_every_family_with_the_last_command_and_not_before(task_type, player):
    env = world(ENV, types=task_type, oracle=player, train_games=5, test_games=3)
    for task in env.tasks("train") + env.tasks("test"):
        _, info = env.reset(seed=0, options={"task": task})
        assert info["task_type"] == task_type
        plan = env.oracle()
        assert len(plan) <= 50
        for number, command in enumerate(plan, 1):
            assert command in env.admissible()
            _, reward, done, _, info = env.step(command)
            assert done == info["won"] == (reward == 1.0) == (number == len(plan))
            assert info["score"] < 1 or done
        assert env.oracle() is None and env.admissible() == ()
        answer, reward, done, _, info = env.step("look")
        assert (answer, reward, done, info["score"]) == ("The game is over.", 0.0, True, 1.0)


@pytest.mark.parametrize("task_type", problem.TASK_TYPES)
def test_the_oracles_win_after_random_commands(task_type):
    rng = Random(task_type)
    for number in range(3):
        game = a_game(task_type, number=number)
        state = game.start
        for _ in range(40):
            command = rng.choice(sorted(engine.moves(game, state)))
            after, _ = engine.do(game, state, engine.moves(game, state)[command])
            done, wanted = goals.progress(game, after)
            state = state if done == wanted else after
        for searching in (True, False):
            plan = winning_commands(game, state, searching=searching)
            assert plan, (game.task, state)


def test_the_searching_oracle_uses_only_what_it_has_observed():
    """It makes the same next decision after the unseen contents of the room are swapped."""
    choices = shortest = 0
    for task_type in problem.TASK_TYPES:
        game = a_game(task_type)
        rng = Random(task_type)
        state = game.start
        shortest += len(winning_commands(game, state, searching=False))
        while goals.progress(game, state)[0] < goals.progress(game, state)[1]:
            unseen = [r for r in range(len(game.places)) if r not in state.seen]
            shuffled = rng.sample(unseen, len(unseen))
            contents = list(state.contents)
            for r, other in zip(unseen, shuffled, strict=True):
                contents[r] = state.contents[other]
            elsewhere = state._replace(contents=tuple(contents))
            command = next_command(game, state, searching=True)
            assert next_command(game, elsewhere, searching=True) == command
            choices += 1
            state, _ = engine.do(game, state, engine.moves(game, state)[command])
    assert choices > 1.2 * shortest, "it had to look for things"


def test_a_fork_shares_no_mutable_state_and_draws_the_same_tasks():
    env = world(ENV, train_games=50)
    env.reset(seed=3)
    other = env.fork()
    for command in other.oracle():
        other.step(command)
    assert other.oracle() is None and env.oracle() is not None
    assert [other.reset()[1]["task_id"] for _ in range(3)] == [
        env.reset()[1]["task_id"] for _ in range(3)
    ]


def test_both_verbs_for_putting_down_work_and_the_game_lists_its_own():
    for spoken, own in (("new", "move"), ("old", "put")):
        env = world(ENV, wording=spoken, oracle="omniscient", types=1)
        env.reset(seed=0, options={"task": a_task("pick_and_place_simple")})
        *way, last = env.oracle()
        for command in way:
            env.step(command)
        assert last.startswith(own) and last in env.admissible()
        thing, place = re.fullmatch(r"\w+ (.+) (?:to|in/on) (.+)", last).groups()
        for command in (f"move {thing} to {place}", f"put {thing} in/on {place}"):
            assert env.fork().step(command)[4]["won"]
        assert not env.fork().step(f"put {thing} to {place}")[4]["action_valid"]


def test_an_invalid_command_changes_nothing():
    env = world(ENV)
    env.reset(seed=0)
    before = env.admissible()
    answer, reward, done, _, info = env.step("Look")
    assert (answer, reward, done) == ("Nothing happens.", 0.0, False)
    assert not info["action_valid"] and env.admissible() == before
    assert env.step("  look ")[4]["action_valid"]


# ---- panels ----------------------------------------------------------------------------------


def test_the_panels_are_frozen_and_have_the_official_sizes():
    digests = {split: agentgym.panel(ENV, split=split) for split in ("train", "valid", "test")}
    assert {name: len(panel) for name, panel in digests.items()} == {
        "train": 2048,
        "valid": 140,
        "test": 134,
    }
    assert {name: panel.digest[:12] for name, panel in digests.items()} == PANELS
    assert agentgym.panel(ENV, split="valid_unseen").tasks == digests["test"].tasks
    assert agentgym.panel(ENV, split="valid_seen").tasks == digests["valid"].tasks


PANELS = {"train": "892b8e305781", "valid": "8ba0b324f43c", "test": "61486be9fdd1"}


def test_the_unseen_rooms_are_the_official_four_and_no_others():
    env = world(ENV)
    plans = {split: {tasks.parse(id_).plan for id_ in env.tasks(split)} for split in tasks.SPLITS}
    assert plans["valid_unseen"] == {10, 219, 308, 424}
    assert not plans["valid_unseen"] & (plans["train"] | plans["valid_seen"])
    assert len(plans["train"]) > 100


def test_families_come_in_their_official_proportions_and_can_be_chosen():
    count = Counter(id_.split("-")[0] for id_ in tasks.panel_ids("train", 2048, problem.TASK_TYPES))
    whole = sum(tasks.SHARES.values())
    for name, share in tasks.SHARES.items():
        assert count[name] / 2048 == pytest.approx(share / whole, abs=0.03)
    assert {id_.split("-")[0] for id_ in world(ENV, types="2,4").tasks("test")} == {
        "look_at_obj_in_light",
        "pick_heat_then_place_in_recep",
    }
    with pytest.raises(ConfigError, match="Did you mean 'look_at_obj_in_light'"):
        world(ENV, types="look_at_obj_in_lights")


@pytest.mark.parametrize(
    "task",
    [
        "pick_heat_then_place_in_recep-Egg-None-Fridge-424-s0",  # a bathroom
        "pick_and_place_simple-Egg-None-Safe-10-s0",
        "pick_and_place_simple-Egg-None-Fridge-31-s0",
        "pick_and_place_simple-Egg-None-Fridge-10-s01",
        "pick_and_place_simple-Egg-None-Fridge-10",
    ],
)
def test_an_impossible_task_is_refused(task):
    with pytest.raises(UnknownTask):
        world(ENV).reset(options={"task": task})


def test_a_task_id_always_gives_the_same_game():
    """A change of the generated games requires a new version of the environment."""
    for task_type, (goal, plan) in GAMES.items():
        game = a_game(task_type)
        assert game.task == goal
        assert list(winning_commands(game, game.start, searching=False)) == plan


GAMES = {
    "pick_and_place_simple": (
        "put some tomato on garbagecan",
        [
            "go to countertop 3",
            "take tomato 2 from countertop 3",
            "go to garbagecan 1",
            "move tomato 2 to garbagecan 1",
        ],
    ),
    "look_at_obj_in_light": (
        "examine the watch with the floorlamp",
        ["go to shelf 1", "take watch 3 from shelf 1", "go to shelf 9", "use floorlamp 1"],
    ),
    "pick_clean_then_place_in_recep": (
        "put a clean tomato in countertop",
        [
            "go to garbagecan 1",
            "take tomato 3 from garbagecan 1",
            "go to sinkbasin 1",
            "clean tomato 3 with sinkbasin 1",
            "go to countertop 3",
            "move tomato 3 to countertop 3",
        ],
    ),
    "pick_heat_then_place_in_recep": (
        "heat some tomato and put it in garbagecan",
        [
            "go to countertop 1",
            "take tomato 1 from countertop 1",
            "go to microwave 1",
            "heat tomato 1 with microwave 1",
            "go to garbagecan 1",
            "move tomato 1 to garbagecan 1",
        ],
    ),
    "pick_cool_then_place_in_recep": (
        "cool some tomato and put it in garbagecan",
        [
            "go to countertop 1",
            "take tomato 2 from countertop 1",
            "go to fridge 1",
            "cool tomato 2 with fridge 1",
            "go to garbagecan 1",
            "move tomato 2 to garbagecan 1",
        ],
    ),
    "pick_two_obj_and_place": (
        "find two tomato and put them in garbagecan",
        [
            "go to countertop 2",
            "take tomato 3 from countertop 2",
            "go to garbagecan 1",
            "move tomato 3 to garbagecan 1",
            "go to countertop 1",
            "take tomato 2 from countertop 1",
            "go to garbagecan 1",
            "move tomato 2 to garbagecan 1",
        ],
    ),
}


@pytest.mark.skipif("AGENTGYM_DATA" not in os.environ, reason="needs the real task lists")
def test_nearly_every_official_task_can_be_generated():
    folder = Path(os.environ["AGENTGYM_DATA"]) / "alfworld_specs"
    listed = json.loads((folder / "mappings_train.json").read_text())
    listed += json.loads((folder / "mappings_test.json").read_text())
    specs = {entry["task_type"] for entry in listed}
    unknown = []
    for spec in specs:
        try:
            tasks.parse(f"{spec}-s0")
        except UnknownTask:
            unknown.append(spec)
    assert len(unknown) < 0.01 * len(specs), sorted(unknown)


# ---- the engine ------------------------------------------------------------------------------


def kitchen(goal=("pick_and_place_simple", "apple", "shelf")):
    """A small, fully known room; its ids make names count down from 2."""
    facts = """
        receptacleatlocation fridge_bar_1 loc_bar_1; receptacletype fridge_bar_1 fridgetype;
        openable fridge_bar_1; receptacleatlocation shelf_bar_1 loc_bar_2;
        receptacletype shelf_bar_1 shelftype; receptacleatlocation shelf_bar_2 loc_bar_2;
        receptacletype shelf_bar_2 shelftype;
        receptacletype sink_bar_1_bar_sinkbasin sinkbasintype;
        receptacleatlocation sink_bar_1_bar_sinkbasin loc_bar_3; atlocation agent1 loc_bar_0;
        objecttype apple_bar_1 appletype; objecttype knife_bar_1 knifetype;
        objecttype apple_bar_2 appletype; inreceptacle apple_bar_1 shelf_bar_1;
        objectatlocation apple_bar_1 loc_bar_2; inreceptacle apple_bar_2 fridge_bar_1;
        inreceptacle knife_bar_1 shelf_bar_2; objecttype mug_bar_1 mugtype;
        isreceptacleobject mug_bar_1; inreceptacle mug_bar_1 shelf_bar_1;
        inreceptacle lamp_bar_1 shelf_bar_1; toggleable lamp_bar_1;
        objecttype lamp_bar_1 desklamptype; cancontain shelftype appletype;
        cancontain fridgetype appletype; cancontain shelftype mugtype;
        cancontain shelftype knifetype; pickupable mug_bar_1; pickupable apple_bar_1;
        pickupable apple_bar_2; pickupable knife_bar_1; cleanable apple_bar_1;
        coolable apple_bar_1; sliceable apple_bar_1; heatable apple_bar_1;"""
    listed = [tuple(line.split()) for line in facts.split(";") if line.strip()]
    types = {}
    for fact in listed:
        for word in fact[1:]:
            kind = word.split("_bar_")[0]
            types[word] = {"agent1": "agent", "loc": "location"}.get(
                kind, "receptacle" if kind in ("fridge", "shelf", "sink") else "object"
            )
    fixed = problem.Problem(types, frozenset(listed), problem.Goal(*goal))
    return build(fixed, "find it", games.wording_named("new"))


def test_every_command_answers_with_the_text_of_the_game():
    game = kitchen()
    assert engine.opening(game) == (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly "
        "around you, you see a fridge 1, a shelf 2, a shelf 1, and a sinkbasin 1.\n\n"
        "Your task is to: find it."
    )
    expected = {
        "look  ": "You are in the middle of a room. Looking quickly around you, you see nothing.",
        "inventory": "You are not carrying anything.",
        "go to fridge 1": "You arrive at fridge 1. The fridge 1 is closed.",
        "open fridge 1": "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1.",
        "close fridge 1": "You close the fridge 1.",
        "examine fridge 1": "The fridge 1 is closed.",
        "go to shelf 2": "You arrive at shelf 2. On the shelf 2, you see a apple 2, a desklamp 1, "
        "and a mug 1.".replace("desklamp", "lamp"),
        "look": "You are facing the shelf 2, and shelf 1. Next to it, you see nothing.",
        "use lamp 1": "You turn on the lamp 1.",
        "take apple 2 from shelf 2": "You pick up the apple 2 from the shelf 2.",
        "inventory ": "You are carrying: a apple 2.",
        "examine apple 2": "There's nothing special about apple 2.",
        "move apple 2 to shelf 1": "You move the apple 2 to the shelf 1.",
        "look ": "You are facing the shelf 2, and shelf 1. Next to it, you see a apple 2.",
        "take apple 2 from shelf 1": "You pick up the apple 2 from the shelf 1.",
        "go to sinkbasin 1": "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.",
        "clean apple 2 with sinkbasin 1": "You clean the apple 2 using the sinkbasin 1.",
        "examine apple 2 ": "This is a clean apple 2.",
        "go to fridge 1 ": "You arrive at fridge 1. The fridge 1 is closed.",
        "cool apple 2 with fridge 1": "You cool the apple 2 using the fridge 1.",
        "examine apple 2  ": "This is a cool and clean apple 2.",
        "go to shelf 1": "You arrive at shelf 1. On the shelf 1, you see a knife 1.",
        "move apple 2 to shelf 2": "You move the apple 2 to the shelf 2.",
        "take knife 1 from shelf 1": "You pick up the knife 1 from the shelf 1.",
        "slice apple 2 with knife 1": "You sliced the apple 2 with the knife 1.",
        "move knife 1 to shelf 1": "You move the knife 1 to the shelf 1.",
        "take apple 2 from shelf 2 ": "You pick up the apple 2 from the shelf 2.",
        "examine apple 2   ": "This is a cool and clean sliced apple 2.",
        "move apple 2 to shelf 2 ": "You move the apple 2 to the shelf 2.",
        "take mug 1 from shelf 2": "You pick up the mug 1 from the shelf 2.",
        "examine mug 1": "This is a normal mug 1. In it, you see nothing.",
    }
    _, answers = run(game, [command.strip() for command in expected])
    assert answers == list(expected.values())


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ("clean hot sliced", "a hot and clean sliced"),
        ("clean sliced", "a clean sliced"),
        ("hot sliced", "a hot sliced"),
        ("cool sliced", "a cool sliced"),
        ("clean hot", "a hot and clean"),
        ("hot", "a hot"),
        ("cool", "a cold"),
        ("sliced", "a sliced"),
    ],
)
def test_the_conditions_of_a_held_object_are_listed_in_the_order_of_the_grammar(marks, text):
    game = kitchen()
    state, _ = run(game, ["go to shelf 2", "take apple 2 from shelf 2"])
    state = state._replace(**{mark: frozenset({state.held}) for mark in marks.split()})
    move = engine.moves(game, state)["examine apple 2"]
    assert engine.do(game, state, move)[1] == f"This is {text} apple 2."


def test_a_command_is_offered_only_where_its_preconditions_hold():
    game = kitchen()
    here = set(engine.moves(game, game.start))
    assert here == {"look", "inventory", "help"} | {f"go to {place.name}" for place in game.places}
    state, _ = run(game, ["go to fridge 1"])
    assert "open fridge 1" in engine.moves(game, state)
    assert not any(command.startswith("take") for command in engine.moves(game, state))
    state, _ = run(game, ["go to shelf 1", "take knife 1 from shelf 1"])
    offered = set(engine.moves(game, state))
    assert {"slice apple 2 with knife 1", "move knife 1 to shelf 2", "use lamp 1"} <= offered
    assert "go to shelf 2" not in offered, "it is at the same spot"
    assert not any(command.startswith("take") for command in offered), "hands are full"
    state, _ = run(game, ["go to shelf 1", "take knife 1 from shelf 1", "go to fridge 1"])
    offered = set(engine.moves(game, state))
    assert not {c for c in offered if "knife" in c} - {"examine knife 1"}, "it fits in no fridge"


def test_looking_around_lists_only_objects_taken_from_here_that_still_lie_nearby():
    game = kitchen()
    about = "You are facing the shelf 2, and shelf 1. Next to it, you see {}."
    moved = ["go to shelf 1", "take apple 2 from shelf 2", "move apple 2 to shelf 1"]
    assert run(game, [*moved, "look"])[1][-1] == about.format("a apple 2")
    back = [*moved, "take apple 2 from shelf 1", "move apple 2 to shelf 2", "look"]
    # It was taken from shelf 1 too, and the game still remembers that.
    assert run(game, back)[1][-1] == about.format("a apple 2")
    again = ["go to shelf 1", "take apple 2 from shelf 2", "move apple 2 to shelf 2", "look"]
    assert run(game, again)[1][-1] == about.format("nothing")
    away = [*moved[:2], "go to fridge 1", "open fridge 1", "move apple 2 to fridge 1"]
    assert run(game, [*away, "go to shelf 1", "look"])[1][-1] == about.format("nothing")


def test_nothing_can_be_put_into_a_closed_receptacle():
    game = kitchen()
    way = ["go to shelf 1", "take apple 2 from shelf 2", "go to fridge 1"]
    state, _ = run(game, way)
    assert "move apple 2 to fridge 1" not in engine.moves(game, state)
    state, _ = run(game, [*way, "open fridge 1"])
    assert "move apple 2 to fridge 1" in engine.moves(game, state)


def test_heating_and_cooling_undo_each_other_and_other_conditions_stay():
    game = a_game("pick_cool_then_place_in_recep")
    (fridge,) = [place.name for place in game.places if place.kind == "fridge"]
    (microwave,) = [place.name for place in game.places if place.kind == "microwave"]
    thing = next(
        (r, o)
        for r, inside in enumerate(game.start.contents)
        for o in inside
        if {"heatable", "coolable", "pickupable"} <= game.things[o].abilities
        and not game.places[r].openable
    )
    place, name = game.places[thing[0]].name, game.things[thing[1]].name
    steps = [f"go to {place}", f"take {name} from {place}", f"go to {fridge}"]
    steps += [f"cool {name} with {fridge}", f"go to {microwave}", f"heat {name} with {microwave}"]
    state, _ = run(game, steps)
    assert (state.held in state.hot, state.held in state.cool) == (True, False)


@pytest.mark.parametrize(
    ("goal", "commands"),
    [
        (
            ("pick_two_obj_and_place", "apple", "shelf"),
            "go to fridge 1; open fridge 1; take apple 1 from fridge 1; go to shelf 1;"
            "move apple 1 to shelf 1; take apple 1 from shelf 1; move apple 1 to shelf 2",
        ),
        (
            ("look_at_obj_in_light", "apple", "desklamp"),
            "go to fridge 1; open fridge 1; take apple 1 from fridge 1; go to shelf 1; use lamp 1",
        ),
        (
            ("pick_clean_then_place_in_recep", "apple", "shelf"),
            "go to shelf 1; take apple 2 from shelf 2; go to sinkbasin 1;"
            "clean apple 2 with sinkbasin 1; go to fridge 1; open fridge 1;"
            "move apple 2 to fridge 1; take apple 1 from fridge 1; go to shelf 1;"
            "move apple 1 to shelf 1; go to fridge 1; take apple 2 from fridge 1;"
            "go to shelf 1; move apple 2 to shelf 1",
        ),
    ],
)
def test_a_goal_is_reached_exactly_when_all_its_conditions_hold_at_once(goal, commands):
    game = kitchen(goal)
    state, wins = game.start, []
    for command in re.split("; ?", commands):
        state, _ = engine.do(game, state, engine.moves(game, state)[command])
        done, wanted = goals.progress(game, state)
        wins.append(done == wanted)
    assert wins == [False] * (len(wins) - 1) + [True]


def test_names_count_down_from_the_first_id_and_basins_have_their_own_name():
    ids = ["cup_bar_1", "cup_bar_2", "sink_bar_1_bar_sinkbasin", "agent1"]
    assert names(ids) == {
        "cup_bar_1": "cup 2",
        "cup_bar_2": "cup 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1",
        "agent1": "agent1 ",
    }


# ---- problems as texts -----------------------------------------------------------------------


@pytest.mark.parametrize("task_type", problem.TASK_TYPES)
def test_a_problem_written_as_pddl_reads_back_equal(task_type):
    facts, _ = generate.generate(tasks.parse(a_task(task_type)))
    assert problem.read(problem.write(facts, "p")) == facts


def test_the_older_form_of_the_light_goal_reads_back_as_the_older_form():
    goal = problem.Goal("look_at_obj_in_light", "book", "desklamp", lamp_here=True)
    facts = problem.Problem({"agent1": "agent"}, frozenset(), goal)
    assert problem.read(problem.write(facts, "p")).goal == goal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a PDDL problem"),
        ("look", "parenthesis"),
        ("(define (problem x)", "not closed"),
        ("(define (problem x) (:objects a - object) (:init))", "':goal'"),
        ("(define (:objects) (:init) (:goal (and (issliced ?o))))", "six families"),
    ],
)
def test_text_that_is_not_a_problem_is_refused_in_one_line(text, expected):
    with pytest.raises(EnvError, match=expected) as error:
        problem.read(text)
    assert "\n" not in str(error.value)


def test_the_grammar_is_parsed_and_never_executed():
    text = wording.grammar("put {__import__('os').abort()} in \\u0062ed", "old")
    spoken, goal = wording.read(text)
    assert goal == "put {__import__('os').abort()} in bed"
    assert (spoken.put, spoken.arrive_at_place, spoken.help) == ("put {o} in/on {r}", False, "")
    spoken, _ = wording.read(wording.grammar("x", "new"))
    assert spoken.put == "move {o} to {r}" and spoken.arrive_at_place
    assert spoken.help.startswith("Available commands:\n  look:")
    with pytest.raises(EnvError, match="not ALFWorld's"):
        wording.read('"rhs": "Your task is to: win."')


def test_reading_the_tables_changes_neither_home_folder_nor_environment_variables():
    code = (
        "import os, sys; before = dict(os.environ); from agentgym_envs.alfworld import tables;"
        "tables.tables(); tables.layout(10); print(before == dict(os.environ), "
        "[m for m in sys.modules if m.split('.')[0] in ('alfworld', 'textworld')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True []", done.stderr
    assert {len(tables.layout(plan).receptacles) > 2 for plan in tables.PLANS} == {True}


def test_generated_games_can_be_limited_to_some_room_types():
    env = world(ENV, types="1", rooms="Bathroom", train_games=40)
    plans = {tasks.parse(id_).plan for split in ("train", "test") for id_ in env.tasks(split)}
    assert {plan // 100 for plan in plans} == {4} and 424 in plans
    assert set(tasks.kinds_of_room("Bathroom, Kitchen")) == {"Bathroom", "Kitchen"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rooms": "bathroom"}, "Did you mean 'Bathroom'"),
        ({"types": "4", "rooms": "Bedroom"}, "no pick_heat"),
    ],
)
def test_rooms_that_do_not_exist_or_have_no_such_task_are_refused(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        world(ENV, **settings).tasks("train")
