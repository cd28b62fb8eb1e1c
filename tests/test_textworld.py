"""TextWorld: real games, generated once into the default cache, in the real interpreter."""

import random
import re
import subprocess
import sys
import threading

import pytest

from agentgym.env.base import TextEnv
from agentgym.env.panel import panel
from agentgym.env.registry import world
from agentgym.errors import CacheError, ConfigError, EnvError, UnknownTask
from agentgym.testing.environments import findings

textworld = pytest.importorskip("textworld")

from agentgym_envs.textworld import games, makers, tasks, text  # noqa: E402

ENV = "agentgym/TextWorld-v0"
COOKING, COLLECTOR, HUNTER, SIMPLE = (
    "cooking-r1t1o1k1c1g6-s1",
    "coin_collector-l3-s1",
    "treasure_hunter-l12-s9",
    "simple-dense-detailed-s3",
)
KITCHEN = "cooking-r1t1o1k1c1g1-s0"
LIMITED = "cooking-r3t3o1k1c1d1g9-s3"
"""Three ingredients, three hands: the kind of game TextWorld's quest tracking cannot follow."""
FAMILIES = (COOKING, COLLECTOR, HUNTER, SIMPLE)


@pytest.fixture(scope="session", autouse=True)
def made():
    makers.generate([*FAMILIES, KITCHEN, LIMITED], workers=2)


@pytest.fixture
def env():
    env = world(ENV)
    yield env
    env.close()


def begin(task: str, **kwargs: object) -> TextEnv:
    env = world(ENV, **kwargs)
    env.reset(options={"task": task})
    return env


def play(env, lines):
    """The result of each command, up to the end of the game."""
    steps = []
    for line in lines:
        observation, reward, terminated, _, info = env.step(line)
        steps.append((observation, reward, terminated, info["score"], info["action_valid"]))
        if terminated:
            break
    return steps


def wander(env, rng, length):
    """Random commands that change something, never past the end of the game."""
    done = []
    for _ in range(length):
        choices = [c for c in env.admissible() if not c.startswith(("examine", "look", "inv"))]
        if not choices:
            break
        done.append(rng.choice(choices))
        if env.step(done[-1])[2]:
            break
    return done


# ---- ids and panels ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        ({}, "d252fc27f04b33e7d5ff542237e9a1cc7a2eea2aefe9e49411759b1bf838c7e1"),
        (
            {"family": "mix", "difficulty": "easy"},
            "7d84e8b073e45d1daa09c7a66171673dfb9194dd834de2bc4444aedb12673156",
        ),
    ],
)
def test_a_panel_never_changes(settings, digest):
    assert panel(ENV, split="test", **settings).digest == digest


def test_splits_share_no_seed_and_alternate_settings_and_families():
    env = world(ENV, family="mix", difficulty="medium")
    seeds = [{tasks.parse(id_).seed for id_ in env.tasks(split)} for split in tasks.SPLIT_SEEDS]
    assert [len(some) for some in seeds] == [256, 32, 64]
    assert len(set().union(*seeds)) == 256 + 32 + 64
    families = [tasks.parse(id_).family for id_ in env.tasks("train")]
    assert families[:8] == [*tasks.FAMILIES, *tasks.FAMILIES]
    cooking = [id_ for id_ in env.tasks("train") if id_.startswith("cooking")]
    codes = {id_.rpartition("-")[0].removeprefix("cooking-") for id_ in cooking[:4]}
    assert codes == set(tasks.PRESETS["cooking"]["medium"])


def test_a_panel_depends_only_on_family_difficulty_and_split():
    few = world(ENV, train_games=3, observation="full").tasks("train")
    assert few == world(ENV).tasks("train")[:3]


def test_every_preset_contains_only_playable_codes():
    for family, presets in tasks.PRESETS.items():
        for name in presets:
            for code in tasks.mix(family, name):
                assert tasks.parse(f"{code}-s0").family == family


@pytest.mark.parametrize(
    "task",
    [
        "",
        "cooking",
        "cooking-r1t1o1k1c1g6-s01",
        "cooking-r1t2o1k1c1g6-s1",
        "cooking-r1t1o1k1c1g7-s1",
        "cooking-r1t1o1k1c1g6-s1\n",
        "cooking-r1t1o1k1c1g6-s-1",
        "cooking-r1t1o1k1c1g6-s1234567890",
        "coin_collector-l0-s1",
        "coin_collector-l151-s1",
        "coin_collector-l301-s1",
        "treasure_hunter-l31-s1",
        "simple-dense-s1",
        "../cooking-r1t1o1k1c1g6-s1",
        "file:/nowhere/game.z8",
        "file:" + __file__,
    ],
)
def test_a_malformed_id_is_rejected_with_an_example(env, task):
    with pytest.raises(UnknownTask, match=r"like '|Did you mean '|expected file:") as caught:
        env.reset(options={"task": task})
    assert "\n" not in str(caught.value)


def test_a_mistyped_task_id_gives_a_suggestion(env):
    with pytest.raises(UnknownTask, match="Did you mean 'cooking-r1t1o1k1c1g1-s0'"):
        env.reset(options={"task": "coking-r1t1o1k1c1g1-s0"})


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "cookin"},
        {"difficulty": "medum"},
        {"difficulty": "r1t1o1k1c1g7"},
        {"family": "mix", "difficulty": "r1t1o1k1c1g6"},
        {"observation": "short"},
        {"reward": "sparse"},
    ],
)
def test_an_invalid_setting_is_rejected_at_construction(settings):
    with pytest.raises(ConfigError):
        world(ENV, **settings)


def test_a_difficulty_may_be_a_list_of_codes():
    ids = world(ENV, difficulty="r1t1o1k1c1g1,r2t1o0k1c0g12", train_games=3).tasks("train")
    assert ids == (
        "cooking-r1t1o1k1c1g1-s0",
        "cooking-r2t1o0k1c0g12-s1",
        "cooking-r1t1o1k1c1g1-s2",
    )


# ---- playing -------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [*FAMILIES, LIMITED])
@pytest.mark.parametrize("observation", ["terse", "full"])
def test_the_oracle_wins_and_winning_ends_the_game(task, observation):
    env = begin(task, observation=observation, reward="outcome")
    plan = env.oracle()
    steps = play(env, plan)
    assert [step[2] for step in steps] == [False] * (len(plan) - 1) + [True]
    assert [step[1] for step in steps] == [0.0] * (len(plan) - 1) + [1.0]
    assert all(step[4] for step in steps), "the oracle says nothing that does nothing"
    assert steps[-1][3] == 1.0 > steps[-2][3]
    assert env.oracle() is None and env.admissible() == ()
    _, reward, terminated, _, info = env.step("look")
    assert (reward, terminated, info["won"], info["action_valid"]) == (0.0, True, True, False)


@pytest.mark.parametrize("task", FAMILIES)
def test_the_oracle_wins_from_any_reached_state(task):
    rng, won = random.Random(0), 0
    for _ in range(12):
        env = begin(task)
        wander(env, rng, rng.randrange(1, 25))
        plan = env.oracle()
        assert env._over or plan is not None  # type: ignore[attr-defined]
        won += bool(plan) and play(env, plan)[-1][3] == 1.0
        assert env._over  # type: ignore[attr-defined]
    assert won >= 3


def test_the_oracle_follows_one_plan_when_queried_every_turn(env):
    env.reset(options={"task": COOKING})
    plan = env.oracle()
    for number, line in enumerate(plan):
        assert env.oracle() == plan[number:]
        env.step(line)


def test_the_list_of_commands_may_hold_a_meal_that_the_game_still_refuses():
    env = begin("cooking-r1t1o1k1c1g1-s0")
    play(env, ["open fridge", "take carrot from fridge"])
    assert "prepare meal" in env.admissible() and not env.admissible_exact
    answer, *_, info = env.step("prepare meal")
    assert answer.startswith("Something still needs to be cooked") and not info["action_valid"]


def test_the_oracle_reads_the_recipe_before_it_cooks_and_only_once(env):
    env.reset(options={"task": COOKING})
    plan = env.oracle()
    assert set(plan[: plan.index("examine cookbook")]) <= {
        *(f"go {way}" for way in ("north", "south", "east", "west")),
        *(line for line in plan if line.startswith("open")),
    }
    play(env, plan[: plan.index("examine cookbook") + 1])
    assert "examine cookbook" not in env.oracle()


def test_the_oracle_of_a_limited_inventory_undoes_a_detour(env):
    env.reset(options={"task": LIMITED})
    plan = env.oracle()
    play(env, [*plan[:10], "look"])
    detour = next(line for line in env.admissible() if line.startswith("go "))
    assert detour != plan[10]
    env.step(detour)
    assert play(env, env.oracle())[-1][3] == 1.0


def test_taking_the_wrong_treasure_loses(env):
    env.reset(options={"task": HUNTER})
    observation, reward, terminated, _, info = env.step("take sponge")
    assert (reward, terminated, info["won"]) == (0.0, True, False)
    assert info["score"] < 1 and "You lost!" in observation
    assert env.oracle() is None


def test_dense_rewards_sum_to_the_fraction_of_the_maximum_score():
    env = begin(SIMPLE, reward="dense")
    steps = play(env, env.oracle())
    assert sum(step[1] for step in steps) == pytest.approx(1.0)
    assert sum(step[1] > 0 for step in steps) > 5
    total = 0.0
    for _, reward, _, score, _ in steps[:-1]:
        total += reward
        assert score == pytest.approx(total)


# The library filters its unknown-game warning at import, but pytest resets warning filters.
@pytest.mark.filterwarnings("ignore:.*is not fully supported")
@pytest.mark.parametrize("task", [*FAMILIES, LIMITED])
def test_score_ending_and_commands_equal_those_of_the_library(task):
    """The same commands in TextWorld's own environment."""
    env, rng = begin(task, admissible=True), random.Random(1)
    theirs = textworld.start(
        str(games.ensure(task)), textworld.EnvInfos(admissible_commands=True, max_score=True)
    )
    for _ in range(2):
        env.reset(options={"task": task})
        state = theirs.reset()
        assert env.admissible() == tuple(state.admissible_commands)
        for _ in range(25):
            line = rng.choice(["xyzzy", "look", *env.admissible()])
            _, _, terminated, _, info = env.step(line)
            state, score, done = theirs.step(line)
            assert (terminated, info["won"]) == (done, state.won)
            if done:
                break
            assert info["score"] == pytest.approx(max(0, score) / state.max_score)
            assert info["admissible_commands"] == tuple(state.admissible_commands)
    theirs.close()


@pytest.mark.parametrize(
    ("line", "valid"),
    [
        ("look", True),
        ("i", True),
        ("examine fridge", True),
        ("read cookbook", True),
        ("OPEN  FRIDGE.", True),
        ("xyzzy", False),
        ("go up", False),
        ("take fridge", False),
        ("eat meal", False),
        ("take", False),
        ("take all", False),
    ],
)
def test_an_action_is_valid_if_the_game_executed_it(env, line, valid):
    env.reset(options={"task": KITCHEN})
    assert env.step(line)[4]["action_valid"] is valid


def test_synonyms_for_an_action_keep_the_logical_state(env):
    """TextWorld's own tracker misses these and has a wrong state from then on."""
    env.reset(options={"task": "cooking-r2t2o1k1c1g6-s1203"})
    play(env, ["open frosted-glass door", "enter door"])
    assert "open fridge" in env.admissible()
    play(env, ["get knife", "pick up yellow apple"])
    assert {"drop knife", "drop yellow apple"} <= set(env.admissible())
    assert play(env, env.oracle())[-1][3] == 1.0


# ---- observations --------------------------------------------------------------------------

TERSE = """\
Goal: Cook the recipe in the cookbook in the kitchen and eat the meal.
Kitchen. You see: closed fridge; oven; table: cookbook, knife; counter; stove."""


def test_terse_observations_are_short_and_complete(env):
    opening, info = env.reset(options={"task": KITCHEN})
    assert opening == TERSE
    assert info["goal"] == "Cook the recipe in the cookbook in the kitchen and eat the meal."
    lines = ["read cookbook", "open fridge", "take knife", "take carrot from fridge", "look"]
    assert [step[0] for step in play(env, lines)] == [
        "Ingredients: carrot. Directions: dice the carrot, roast the carrot, prepare meal.",
        "You open the fridge, revealing a carrot.",
        "You take the knife from the table.\nYou carry: knife.",
        "You take the carrot from the fridge.\nScore up.\nYou carry: carrot, knife.",
        "Kitchen. You see: open fridge: nothing; oven; table: cookbook; counter; stove.\n"
        "You carry: carrot, knife.",
    ]


def test_full_observations_contain_only_the_text_of_the_game():
    env = begin(COOKING, observation="full")
    opening, info = env.reset(options={"task": COOKING})
    assert opening.startswith(info["goal"]) and "-= " in opening
    steps = [opening, *(step[0] for step in play(env, env.oracle()))]
    for shown in steps:
        assert not re.search(r"[\[\]$]|^>|succeeded|<score>|RESTART|\n\n\n|^\s|\s$", shown), shown
    assert "*** The End ***" in steps[-1]
    assert "point" in steps[-1]


def test_a_terse_room_lists_what_the_full_text_mentions():
    full, terse = begin(COOKING, observation="full"), begin(COOKING)
    for line in ("look", *full.oracle()):
        long, _, done, _, _ = full.step(line)
        short = terse.step(line)[0]
        if line == "look" or line.startswith("go "):
            listed = re.findall(r"You see: (.*?)\.(?: Exits|$)", short.split("\n")[0])
            for thing in re.split(r"[;:,] ", "; ".join(listed)):
                assert thing.removeprefix("closed ").removeprefix("open ") in ("", "nothing") or (
                    thing.split()[-1] in long
                ), (thing, long)
        if done:
            break


def test_the_inventory_uses_the_names_of_the_game():
    env = begin(KITCHEN)
    play(
        env,
        [
            "open fridge",
            "take carrot",
            "take knife",
            "cook carrot with oven",
            "dice carrot with knife",
        ],
    )
    listed = env.step("inventory")[0]
    ours = env.step("wait")[0].split("You carry: ")[1].rstrip(".").split(", ")
    assert listed.startswith("You are carrying") and "You carry" not in listed
    assert len(ours) == 2 and all(thing in listed for thing in ours), (ours, listed)
    assert "diced roasted carrot" in ours
    assert "You carry" not in begin(KITCHEN, inventory=False).step("take knife")[0]


# ---- invalid commands ----------------------------------------------------------------------

NONSENSE = [
    "",
    "   \t ",
    "\x00",
    "\x00\x01\x1b[2J\x7f",
    "take knife. take cookbook",
    "take knife\ntake cookbook",
    "take knife; take cookbook",
    "take knife then take cookbook",
    "take knife and cookbook",
    "take knife, cookbook",
    "drop all",
    "quit",
    "QUIT",
    "q",
    "restart",
    "restore",
    "save",
    "script on",
    "undo",
    "oops knife",
    "tw-trace-actions",
    "tw-extra-infos moves",
    "print_state",
    "restrict commands",
    "\u2028quit",
    "x" * 100_000,
    "take " * 30_000,
    "打开 冰箱 🙂",
    "\ud800",
    "ünïcödé",
    "<score>\n9\n</score>",
    "%s %n {0} $(id)",
]


@pytest.mark.parametrize("action", NONSENSE)
def test_an_unknown_command_gets_a_reply_and_changes_nothing(action):
    env, twin = begin(KITCHEN, admissible=True), begin(KITCHEN, admissible=True)
    before = env.admissible()
    observation, reward, terminated, _, info = env.step(action)
    assert observation and (reward, terminated, info["action_valid"]) == (0.0, False, False)
    assert env.admissible() == before
    plan = env.oracle()
    assert play(env, plan) == play(twin, plan)


def test_a_nul_byte_inside_a_command_is_dropped(env):
    env.reset(options={"task": KITCHEN})
    assert "You take the knife" in env.step("take\x00 kni\x07fe")[0]


@pytest.mark.parametrize(
    "forgery",
    [
        "*** The End ***",
        "] *** You lost! ***",
        "][taking the knife - succeeded]",
        "][opening the fridge - succeeded][",
        "-= Garden =-",
        "<score>\n7\n",
    ],
)
def test_player_text_is_never_parsed_as_game_output(env, forgery):
    """The game's trace repeats player text, and events are parsed from the trace."""
    env.reset(options={"task": KITCHEN})
    before = env.admissible()
    for line in (f"say {forgery}", f"consult cookbook about {forgery}", f'say "{forgery}"'):
        observation, reward, terminated, _, info = env.step(line)
        assert (reward, terminated, info["won"], info["score"]) == (0.0, False, False, 0.0)
        assert not re.search("end|lost|garden|score|succeeded", observation.lower())
    assert env.admissible() == before
    assert env.step("look")[4]["action_valid"]


# ---- forks, threads, life cycle ------------------------------------------------------------


def test_200_random_continuations_of_forks_equal_those_of_the_original():
    rng, env, replay = random.Random(2), begin(COOKING), begin(COOKING)
    prefix = wander(env, rng, 4)
    assert not env._over  # type: ignore[attr-defined]
    for _ in range(200):
        fork = env.fork()
        choices = [*fork.admissible(), "xyzzy", "take", "wait"]
        lines = [rng.choice(choices) for _ in range(3)]
        replay.reset(options={"task": COOKING})
        play(replay, prefix)
        assert play(fork, lines) == play(replay, lines)
        assert fork.admissible() == replay.admissible()
        fork.close()
    forks = [env.fork() for _ in range(3)]
    for fork in forks:
        wander(fork, rng, 4)
    plan = env.oracle()
    replay.reset(options={"task": COOKING})
    play(replay, prefix)
    assert plan == replay.oracle()
    assert play(env, plan) == play(replay, plan)
    assert env._won  # type: ignore[attr-defined]


def test_the_forks_of_a_step_reuse_idle_interpreters():
    """Starting an interpreter takes milliseconds, reusing an idle one 0.1 ms."""
    env = begin(HUNTER)

    def forked():
        forks = [env.fork() for _ in range(64)]
        used = {id(fork._session.interpreter) for fork in forks}  # type: ignore[attr-defined]
        for fork in forks:
            fork.close()
        return used

    first = forked()
    assert len(first) == 64 and forked() == first
    env.close()


def test_a_fork_has_its_own_score_ending_and_generator():
    env = begin(KITCHEN)
    fork = env.fork()
    play(fork, fork.oracle())
    assert fork._over and not env._over and env._score == 0  # type: ignore[attr-defined]
    assert fork.np_random is not env.np_random
    assert play(env.fork(), env.oracle())[-1][3] == 1.0


def test_a_closed_environment_can_be_closed_again_and_reset(env):
    env.reset(options={"task": KITCHEN})
    env.close()
    env.close()
    with pytest.raises(EnvError, match="reset"):
        env.step("look")
    assert env.reset(options={"task": KITCHEN})[0] == TERSE


def test_environments_in_many_threads_do_not_disturb_each_other():
    episodes = {task: (lambda e: play(e, e.oracle()))(begin(task)) for task in FAMILIES}
    seen = []

    def run(number):
        env = world(ENV)
        for task in FAMILIES[number % 4 :] + FAMILIES[: number % 4]:
            env.reset(options={"task": task})
            seen.append(play(env, env.oracle()) == episodes[task])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 24


def test_many_threads_can_load_their_first_games_at_once():
    for task in FAMILIES:
        begin(task).close()
    # In a new process, because TextWorld's parser only fails while its own files are unread.
    program = f"""
from concurrent.futures import ThreadPoolExecutor
from agentgym.env.registry import world
def begin(task):
    world({ENV!r}).reset(options=dict(task=task))
with ThreadPoolExecutor(16) as pool:
    list(pool.map(begin, {FAMILIES * 4}))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_cleaning_text_is_idempotent():
    for action in NONSENSE:
        line = text.command(action)
        if not isinstance(line, text.Refused):
            assert text.command(line) == line and len(line) <= text.LONGEST


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unwritable_cache_is_one_line_that_names_the_folder(monkeypatch, workers):
    monkeypatch.setenv("AGENTGYM_CACHE", "/dev/null/cache")
    with pytest.raises(
        CacheError, match="set AGENTGYM_CACHE and TMPDIR to other folders"
    ) as caught:
        makers.generate([*FAMILIES][:2], workers=workers)
    assert "\n" not in str(caught.value) and "/dev/null/cache" in str(caught.value)


def test_an_unwritable_cache_is_one_error_of_the_check(monkeypatch):
    monkeypatch.setenv("AGENTGYM_CACHE", "/dev/null/cache")
    with pytest.raises(CacheError) as caught:
        list(findings("agentgym/TextWorld-v0"))
    assert "\n" not in str(caught.value)
